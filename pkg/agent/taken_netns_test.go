package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Where a process of the pod has taken the name of the agent's socket, who asks there is
// told which one, as far as can be known, and what to do.
func TestSocketTaken(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start(t)
	n.until(t, "it answers", func(agent.Status) bool { return true })
	v := n.newVM(t, "vm")
	who := fmt.Sprintf("process %d (", os.Getpid())
	var fd int
	v.In(t, func() (err error) {
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: control.PodSocketName})
		}
		return err
	})
	if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err != nil {
		t.Fatal(err)
	}
	_, err := ask(t, v)
	wantWords(t, "of one that does not listen", err, control.ErrNobodyServes, "has taken this name and does not listen", "end that process")
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	_, err = ask(t, v)
	wantWords(t, "of one that is silent", err, control.ErrNoAnswer, who, "of user 0", "end it", "the agent listens there within a minute")
	_, err = ask(t, v)
	wantWords(t, "of one with whom others wait", err, control.ErrNoAnswer, control.PodSocketName, "end it")
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	v.In(t, func() error {
		_, err = control.Client{StateDir: filepath.Join(t.TempDir(), "none")}.Wait(soon, control.ForNetwork)
		return nil
	})
	wantWords(t, "who waits, of one with whom others wait", err, context.DeadlineExceeded, control.PodSocketName, "end it")
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}

	other := n.newVM(t, "other")
	var listener net.Listener
	other.In(t, func() (err error) {
		listener, err = net.Listen("unix", control.PodSocketName) //nolint:noctx // it takes no time
		return err
	})
	answers := make(chan string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = io.WriteString(conn, <-answers)
			_ = conn.Close()
		}
	}()
	for what, c := range map[string]struct {
		answer string
		is     error
	}{
		"of one that hangs up":          {"", control.ErrNobodyServes},
		"of one that talks of nothing":  {"nothing\r\n\r\n", nil},
		"of one that is another server": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", nil},
	} {
		answers <- c.answer
		_, err := ask(t, other)
		wantWords(t, what, err, c.is, who, "of user 0", "end it")
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

func wantWords(t *testing.T, what string, err, is error, words ...string) {
	t.Helper()
	if err == nil || is != nil && !errors.Is(err, is) {
		t.Errorf("%s it is told %v, which is not %v", what, err, is)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s it is told %v, without %q", what, err, w)
		}
	}
}

// Processes of the pod that stay connected to the agent's socket, or ask and wait, keep nobody
// out, and end no one's wait that is another user's.
func TestSocketHeld(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start(t)
	n.until(t, "it answers", func(agent.Status) bool { return true })
	v := n.newVM(t, "vm")
	if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err != nil {
		t.Fatal(err)
	}
	connect := func(say string, user uintptr) (conn net.Conn) {
		v.In(t, func() (err error) {
			const keep = ^uintptr(0)
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, user, keep); e != 0 { // of this thread alone
				return e
			}
			defer unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep) //nolint:errcheck // who was root may
			for conn == nil {
				conn, err = net.Dial("unix", control.PodSocketName) //nolint:noctx // it takes no time
				if err != nil && !errors.Is(err, unix.EAGAIN) {     // else the agent has yet to take others
					return err
				}
			}
			_, err = io.WriteString(conn, say)
			return err
		})
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	const waits = "GET /v1/wait?for=lease HTTP/1.1\r\nHost: x\r\n\r\n"
	waiting := connect(waits, 0)
	for i := range 60 {
		connect([]string{"", "GET /v1/status", waits}[i%3], 1234)
	}
	if status, err := ask(t, v); err != nil || status.Of("eth0").Lease == nil {
		t.Errorf("beside them the status is %+v, %v", status, err)
	}
	v.boot(t, v.guest(t))
	_ = waiting.SetReadDeadline(time.Now().Add(podtest.Patience))
	if answer, err := io.ReadAll(waiting); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("who waited before them reads %q, %v", answer, err)
	}
}

// NICs of a pod that the agent serves are the CNI plugin's: who asks for one in the pod, or
// from the node, is told so.
func TestPlugInPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm")
	n.start(t)
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
	inPod := prestart.Hook{StateDir: t.TempDir()}
	onNode := prestart.Hook{StateDir: t.TempDir(), Netns: v.Netns}
	r := prestart.PlugRequest{Interface: "net1", Timeout: time.Second}
	byCNI := []string{"the node's agent serves this pod", "are added and removed by the CNI plugin", "k8s.v1.cni.cncf.io/networks"}
	v.In(t, func() error {
		_, err := inPod.Plug(t.Context(), r)
		wantWords(t, "plug in the pod", err, control.ErrNode, append(byCNI, "plug net1: ")...)
		wantWords(t, "unplug in the pod", inPod.Unplug(t.Context(), r), control.ErrNode, append(byCNI, "unplug net1: ")...)
		return nil
	})
	_, err := onNode.Plug(t.Context(), r)
	wantWords(t, "plug on the node", err, control.ErrNode, byCNI...)
	if err := os.RemoveAll(attachment.Dir(n.stateDir, v.ContainerID)); err != nil {
		t.Fatal(err)
	}
	if err := n.client().Detach(t.Context(), v.ContainerID, "eth0"); err != nil {
		t.Fatal(err)
	}
	_, err = onNode.Plug(t.Context(), r)
	wantWords(t, "plug where nobody serves", err, control.ErrNobodyServes, "start a server")
}
