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
	name := path
	if path == "-" {
		name, path = "standard input", ""
	}
	var text []byte
	read := make(chan error, 1)
	go func() {
		var err error
		text, err = readAll(stdin, path)
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

// readAll reads the file, or source if there is no path, as far as it may be long.
func readAll(source io.Reader, path string) ([]byte, error) {
	if path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		source = file
	}
	return io.ReadAll(io.LimitReader(source, 16<<20))
}
