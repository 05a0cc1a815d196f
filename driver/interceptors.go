package driver

import (
	"context"
	"strings"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
)

// withDeadline bounds every call: the daemon's answer is waited for that long.
func withDeadline(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	return handler(ctx, req)
}

// logged writes a line for each call, with everything secret left out. Failures
// that ask the caller to act are errors, those it retries by itself and answers to
// questions are for debugging.
func logged(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	logger := klog.FromContext(ctx).WithValues("method", method)
	if v, ok := req.(interface{ GetVolumeId() string }); ok {
		logger = logger.WithValues("volume", v.GetVolumeId())
	}
	logger.V(4).Info("CSI call begins", "request", protosanitizer.StripSecrets(req))
	begun := time.Now()
	response, err := handler(klog.NewContext(ctx, logger), req)
	logger = logger.WithValues("seconds", time.Since(begun).Seconds())
	switch code := status.Code(err); {
	case err == nil && isQuestion(method):
		logger.V(4).Info("CSI call answered", "response", protosanitizer.StripSecrets(response))
	case err == nil:
		logger.Info("CSI call done", "response", protosanitizer.StripSecrets(response))
	case code == codes.Aborted:
		logger.V(4).Info("CSI call while another is running")
	default:
		logger.Error(err, "CSI call failed", "code", code.String())
	}
	return response, err
}

// isQuestion reports whether a method changes nothing.
func isQuestion(method string) bool {
	for _, word := range []string{"Get", "List", "Probe", "Validate"} {
		if strings.Contains(method, word) {
			return true
		}
	}
	return false
}
