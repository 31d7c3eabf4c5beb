package main

import (
	"context"
	"fmt"
	"io"
	"os"
)

// readFile reads a file, or standard input for "-", and has its text taken. An
// error names the file; what is what it has. ctx ends it also where nobody writes, as
// to a FIFO.
func readFile(ctx context.Context, stdin io.Reader, path, what string, take func([]byte) error) error {
	name, source := path, func() (io.ReadCloser, error) { return os.Open(path) }
	if path == "-" {
		name, source = "standard input", func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil }
	}
	var text []byte
	read := make(chan error, 1)
	go func() {
		file, err := source()
		if err == nil {
			text, err = io.ReadAll(io.LimitReader(file, 16<<20))
			file.Close()
		}
		read <- err
	}()
	var err error
	select {
	case err = <-read:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	if err := take(text); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
