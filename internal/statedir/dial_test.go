package statedir

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// late is a context that is over its time and has not ended yet, as on a busy machine.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// That the time is over is what the context says, not who connects.
func TestDialOverTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, _, err := Dial(late{t.Context()}, path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Where many ask at once, who finds no room waits for it, until who listens takes another.
func TestDialWaitsForRoom(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	full, _, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, err := Dial(soon, path); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("while nobody is taken: %v", err)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	dialed := make(chan result, 1)
	go func() {
		conn, _, err := Dial(t.Context(), path)
		dialed <- result{conn, err}
	}()
	select {
	case r := <-dialed:
		t.Fatalf("it did not wait: %v", r.err)
	case <-time.After(300 * time.Millisecond):
	}
	taken, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(taken)
	if r := <-dialed; r.err != nil {
		t.Errorf("once there is room: %v", r.err)
	} else {
		r.conn.Close()
	}
}
