package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeUnits are the units that sizes are read in, the longer names first.
func sizeUnits() []struct {
	name  string
	bytes float64
} {
	return []struct {
		name  string
		bytes float64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
		{"B", 1}, {"", 1},
	}
}

// size is a flag that holds a number of bytes.
type size int64

// Set reads 10GiB, 10Gi, 1.5TiB, 10GB or a number of bytes.
func (s *size) Set(text string) error {
	for _, unit := range sizeUnits() {
		digits, found := strings.CutSuffix(text, unit.name)
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		bytes := n * unit.bytes
		switch {
		case err != nil || math.IsNaN(n):
			return fmt.Errorf("%q is not a size such as 10GiB", text)
		case bytes < 1:
			return fmt.Errorf("%q is not above zero", text)
		case bytes >= math.MaxInt64:
			return fmt.Errorf("%q is too large", text)
		case bytes != math.Trunc(bytes):
			return fmt.Errorf("%q is not a whole number of bytes", text)
		}
		*s = size(bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size such as 10GiB", text)
}

// Type names the flag's values in the help.
func (s *size) Type() string { return "size" }

// String prints the size with the largest unit that leaves at least 1.
func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return formatSize(int64(*s))
}

// formatSize prints a number of bytes for people: 10GiB, 1.5TiB, 512B.
func formatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	value, i := float64(n), 0
	for math.Abs(value) >= 1024 && i < len(units)-1 {
		value /= 1024
		i++
	}
	text := strconv.FormatFloat(value, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + units[i]
}
