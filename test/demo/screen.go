package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// screen is what the spectator sees. Safe for use by several goroutines.
type screen struct {
	mu       sync.Mutex
	start    time.Time
	step     int
	checks   int
	failures []string
}

func (s *screen) begin() {
	s.start = time.Now()
}

// heading begins a step.
func (s *screen) heading(format string, args ...any) {
	s.step++
	s.printf("\n== %d. %s  [%.1f s]\n", s.step, fmt.Sprintf(format, args...), time.Since(s.start).Seconds())
}

// say prints a remark.
func (s *screen) say(format string, args ...any) {
	s.printf("   %s\n", fmt.Sprintf(format, args...))
}

// show prints a command and, indented, what it printed.
func (s *screen) show(command, output string) {
	var b strings.Builder
	fmt.Fprintln(&b, "   $", command)
	for line := range strings.Lines(output) {
		fmt.Fprintln(&b, "    ", strings.TrimRight(line, " \n"))
	}
	s.printf("%s", b.String())
}

// check prints whether what is claimed was seen, and returns that.
func (s *screen) check(seen bool, format string, args ...any) bool {
	claim, mark := fmt.Sprintf(format, args...), "ok  "
	s.checks++
	if !seen {
		mark = "FAIL"
		s.failures = append(s.failures, claim)
	}
	s.printf("   %s %s\n", mark, claim)
	return seen
}

// end prints the outcome; the error says which claims were not seen.
func (s *screen) end() error {
	if len(s.failures) > 0 {
		return fmt.Errorf("%d of %d checks failed:\n  %s", len(s.failures), s.checks, strings.Join(s.failures, "\n  "))
	}
	s.printf("\n== All %d checks passed in %.1f s\n", s.checks, time.Since(s.start).Seconds())
	return nil
}

func (s *screen) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(os.Stdout, format, args...)
}

// log returns a writer whose lines are shown as those of a program that runs
// beside the demo.
func (s *screen) log() io.Writer {
	return &logLines{screen: s}
}

type logLines struct {
	screen  *screen
	pending []byte
}

func (l *logLines) Write(p []byte) (int, error) {
	l.pending = append(l.pending, p...)
	for {
		line, rest, found := bytes.Cut(l.pending, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.screen.printf("     | %s\n", line)
		l.pending = rest
	}
}

// commandLine is a command as one would type it, with our own descriptors'
// paths and directories shortened.
func commandLine(name string, args []string) string {
	words := []string{name}
	for i, arg := range args {
		if i > 0 && args[i-1] == "--netns" {
			arg = "POD"
		}
		if strings.ContainsAny(arg, "? ") {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
