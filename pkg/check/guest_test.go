package check

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A question that waits to be sent when the context ends is told as the context's cause,
// not as a write that took too long.
func TestAskEndsWithItsContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	size, err := unix.FcntlInt(r.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil { // no room for a question
		t.Fatal(err)
	}
	cause := errors.New("the launcher ends")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := (&guestEnd{file: w}).ask(ctx, []byte("question"), nil); !errors.Is(err, cause) {
		t.Errorf("%v, want %v", err, cause)
	}
}
