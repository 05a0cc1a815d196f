package cluster

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger is the hclog.Logger that Raft and its log store want, on top of
// slog. What they call info is about their inner life and becomes debug.
type raftLogger struct {
	logger *slog.Logger
	name   string
	args   []any
}

var _ hclog.Logger = raftLogger{}

func (l raftLogger) log(level slog.Level, msg string, args []any) {
	l.logger.Log(context.Background(), level, msg, args...) //nolint:sloglint // The messages are Raft's.
}

// Log implements hclog.Logger.
func (l raftLogger) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		l.Error(msg, args...)
	case hclog.Warn:
		l.Warn(msg, args...)
	default:
		l.Debug(msg, args...)
	}
}

// Trace implements hclog.Logger; it is dropped.
func (l raftLogger) Trace(string, ...any) {}

// Debug implements hclog.Logger.
func (l raftLogger) Debug(msg string, args ...any) { l.log(slog.LevelDebug, msg, args) }

// Info implements hclog.Logger.
func (l raftLogger) Info(msg string, args ...any) { l.log(slog.LevelDebug, msg, args) }

// Warn implements hclog.Logger.
func (l raftLogger) Warn(msg string, args ...any) { l.log(slog.LevelWarn, msg, args) }

// Error implements hclog.Logger.
func (l raftLogger) Error(msg string, args ...any) { l.log(slog.LevelError, msg, args) }

func (l raftLogger) enabled(level slog.Level) bool {
	return l.logger.Enabled(context.Background(), level)
}

// IsTrace implements hclog.Logger.
func (l raftLogger) IsTrace() bool { return false }

// IsDebug implements hclog.Logger.
func (l raftLogger) IsDebug() bool { return l.enabled(slog.LevelDebug) }

// IsInfo implements hclog.Logger.
func (l raftLogger) IsInfo() bool { return l.enabled(slog.LevelDebug) }

// IsWarn implements hclog.Logger.
func (l raftLogger) IsWarn() bool { return l.enabled(slog.LevelWarn) }

// IsError implements hclog.Logger.
func (l raftLogger) IsError() bool { return l.enabled(slog.LevelError) }

// ImpliedArgs implements hclog.Logger.
func (l raftLogger) ImpliedArgs() []any { return l.args }

// With implements hclog.Logger.
func (l raftLogger) With(args ...any) hclog.Logger {
	return raftLogger{logger: l.logger.With(args...), name: l.name, args: append(append([]any(nil), l.args...), args...)}
}

// Name implements hclog.Logger.
func (l raftLogger) Name() string { return l.name }

// Named implements hclog.Logger.
func (l raftLogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

// ResetNamed implements hclog.Logger.
func (l raftLogger) ResetNamed(name string) hclog.Logger {
	return raftLogger{logger: l.logger, name: name, args: l.args}
}

// SetLevel implements hclog.Logger; the level is the handler's.
func (l raftLogger) SetLevel(hclog.Level) {}

// GetLevel implements hclog.Logger.
func (l raftLogger) GetLevel() hclog.Level {
	if l.IsDebug() {
		return hclog.Debug
	}
	return hclog.Warn
}

// StandardLogger implements hclog.Logger.
func (l raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.logger.Handler(), slog.LevelWarn)
}

// StandardWriter implements hclog.Logger.
func (l raftLogger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(opts).Writer()
}
