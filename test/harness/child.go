package harness

import (
	"os/exec"
	"runtime"
	"sync"
)

// StartChild starts a process that the kernel ends when its parent dies (Pdeathsig). The
// parent, for the kernel, is a thread, and threads of Go end: with a goroutine that was
// locked to one, as those of rings and of network namespaces are. So children come from a
// thread that is never given back.
func StartChild(cmd *exec.Cmd) error {
	err := make(chan error)
	nursery() <- func() { err <- cmd.Start() }
	return <-err
}

var nursery = sync.OnceValue(func() chan<- func() {
	births := make(chan func())
	go func() {
		runtime.LockOSThread()
		for birth := range births {
			birth()
		}
	}()
	return births
})
