package podtest

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A command lives on when the thread ends whose goroutine started it.
func TestCommandOutlivesThread(t *testing.T) {
	t.Parallel()
	cmd := Command(t.Context(), nil, "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	thread := make(chan int)
	var start func()
	start = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // a process's first thread does not end
			go start()
			<-t.Context().Done()
			runtime.UnlockOSThread()
			return
		}
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
		thread <- unix.Gettid()
	}
	go start()
	task := fmt.Sprintf("/proc/self/task/%d", <-thread)
	for err == nil && t.Context().Err() == nil { // until it has ended
		_, err = os.Stat(task)
		runtime.Gosched()
	}
	if _, err := stdin.Write([]byte("still there\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "still there\n" {
		t.Errorf("cat printed %q: %v", line, err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
