package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A signal ends the program also while nobody writes what it reads; what has no end
// is not read to its end.
func TestReadFile(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	silent, writer := io.Pipe()
	defer writer.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, path := range []string{"-", fifo} {
		if err := readFile(ended, silent, path, "NICs", func([]byte) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", path, err)
		}
	}
	err := readFile(t.Context(), silent, "/dev/zero", "NICs", func(text []byte) error {
		if len(text) > 16<<20 {
			t.Errorf("it has %d bytes", len(text))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if writer, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil { // lets go of who waits
		writer.Close()
	}
}
