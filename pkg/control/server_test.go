package control

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
)

// Who makes the socket again while the server is closed leaves none behind.
func TestCloseWhileMadeAgain(t *testing.T) {
	t.Parallel()
	for range 300 {
		s, err := NewServer(t.TempDir(), func() Status { return Status{} }, func(context.Context, string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		closed, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-closed:
					return
				default:
				}
				if !s.IsThere() {
					_ = s.Listen(t.Context())
				}
			}
		}()
		s.Close()
		close(closed)
		<-ended
		if _, err := os.Lstat(s.path()); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the socket is left: %v", err)
		}
	}
}
