package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// A line that is longer than the room there is begins, and has no end; the next one begins
// anew.
func TestLogWriter(t *testing.T) {
	reader, file, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	log := &logWriter{file: file, newHandler: func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }}
	fmt.Fprintln(log, "before")
	fmt.Fprintln(log, strings.Repeat("x", 1<<20))
	start := time.Now()
	for range 100 {
		fmt.Fprintln(log, "left out")
	}
	if took := time.Since(start); took > 10*readerTime {
		t.Errorf("lines that nobody reads took %s", took)
	}
	got := make([]byte, 1<<20)
	n, err := reader.Read(got)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "after")
	file.Close()
	rest, err := io.ReadAll(reader)
	lines := strings.Split(string(got[:n])+string(rest), "\n")
	if err != nil || len(lines) != 5 || lines[0] != "before" || strings.Trim(lines[1], "x") != "" ||
		!strings.Contains(lines[2], `"lines":101}`) || lines[3] != "after" {
		for i, l := range lines {
			lines[i] = l[:min(len(l), 200)]
		}
		t.Errorf("got %q, %v", lines, err)
	}
}
