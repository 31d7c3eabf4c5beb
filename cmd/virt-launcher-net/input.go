package main

import (
	"fmt"
	"io"
	"os"
)

// readFile reads a file, or standard input for "-", and has its text taken. An
// error names the file; what is what it has.
func readFile(stdin io.Reader, path, what string, take func([]byte) error) error {
	const most = 16 << 20
	name, read := path, func() ([]byte, error) { return os.ReadFile(path) }
	if path == "-" {
		name, read = "standard input", func() ([]byte, error) { return io.ReadAll(io.LimitReader(stdin, most)) }
	}
	text, err := read()
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	if err := take(text); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
