package robustness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// evidenceLogBytes is how much of the end of each log is kept of a failed round.
const evidenceLogBytes = 8 << 20

// keepEvidence copies what explains a failure into a folder, and says so.
func (r *round) keepEvidence(cause error) error {
	if err := os.MkdirAll(r.keep, 0o750); err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	report := fmt.Sprintf("seed %d\n\n%v\n", r.seed, cause)
	if r.load != nil {
		report += "\nevents\n"
		r.load.history.mu.Lock()
		for _, e := range r.load.history.events {
			report += fmt.Sprintf("%12.6f %s\n", float64(e.at)/1e9, e.text)
		}
		r.load.history.mu.Unlock()
	}
	errs := []error{os.WriteFile(filepath.Join(r.keep, "report.txt"), []byte(report), 0o600)}
	logs, err := filepath.Glob(filepath.Join(r.dir, "*.log"))
	errs = append(errs, err)
	for _, log := range logs {
		errs = append(errs, keepEnd(log, filepath.Join(r.keep, filepath.Base(log))))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keep evidence: %w", err)
	}
	r.printf("  report and logs are in %s\n", r.keep)
	return nil
}

// keepEnd copies the end of a file.
func keepEnd(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if _, err := source.Seek(max(0, info.Size()-evidenceLogBytes), io.SeekStart); err != nil {
		return err
	}
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
