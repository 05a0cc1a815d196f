// Command canaries builds a program with an edit applied.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/holdfast-io/holdfast/test/canaries"
)

func main() {
	edits, err := canaries.Load("test/canaries")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	root, _ := os.Getwd()
	var off canaries.Edit
	for _, e := range edits {
		if e.Name == canaries.AssertionsOff {
			off = e
		}
	}
	for _, e := range edits {
		if e.Rule == 0 || len(os.Args) > 2 && e.Name != os.Args[2] {
			continue
		}
		dir, _ := os.MkdirTemp("", "canary")
		o, err := canaries.Overlay(root, dir, off, e)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		cmd := exec.Command("go", "build", "-overlay", o, "-o", filepath.Join(os.Args[1], e.Name), "./test/explore/cmd/explore")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Println(e.Name, err)
		}
	}
}
