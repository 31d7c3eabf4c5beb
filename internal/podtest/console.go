package podtest

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Console is a running program that a test talks with: a server that logs,
// firmware behind a serial port. Safe for use by several goroutines.
type Console struct {
	stdin io.Writer

	mu    sync.Mutex
	text  []byte        // without what was meant for a terminal
	rest  []byte        // what has come of it that may not be whole
	more  chan struct{} // closed when there is more, or the end
	ended bool
}

// StartConsole starts a command for a test. It is asked to end, and then made
// to, at the test's end.
func StartConsole(t testing.TB, cmd *Cmd) *Console {
	t.Helper()
	c := &Console{more: make(chan struct{})}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	cmd.Stdout, cmd.Stderr = printed{c}, printed{c}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it is ended by a signal
		c.add(nil, true)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // an error: it has ended
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	return c
}

// printed is what the program writes to.
type printed struct{ c *Console }

func (p printed) Write(b []byte) (int, error) {
	p.c.add(b, false)
	return len(b), nil
}

func (c *Console) add(b []byte, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const longest = 16 // of what is meant for a terminal
	c.rest, c.ended = append(c.rest, b...), end
	whole := len(c.rest)
	if i := bytes.LastIndexByte(c.rest, '\x1b'); i >= 0 && whole-i < longest && !end && !control.Match(c.rest[i:]) {
		whole = i
	}
	c.text = append(c.text, control.ReplaceAll(c.rest[:whole], nil)...)
	c.rest = c.rest[whole:]
	close(c.more)
	c.more = make(chan struct{})
}

// control is what programs tell a terminal besides text (ECMA-48 §5.4).
var control = regexp.MustCompile("\x1b\\[[0-9;=?]*[A-Za-z]|\x1bc|\r")

// Text is what the program has printed until now, without what was meant for a
// terminal.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Say writes to the program's standard input.
func (c *Console) Say(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(c.stdin, text); err != nil {
		t.Fatal(err)
	}
}

// Wait waits until what the program has printed is as wanted, and returns it.
// The test ends if that takes longer than it may, or the program ends before.
func (c *Console) Wait(t testing.TB, within time.Duration, what string, wanted func(text string) bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		c.mu.Lock()
		more, ended := c.more, c.ended
		c.mu.Unlock()
		text := c.Text()
		if wanted(text) {
			return text
		}
		if ended {
			t.Fatalf("ended without %s; printed:\n%s", what, text)
		}
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("no %s within %v; printed:\n%s", what, within, text)
		}
	}
}

// WaitLine is Wait for a line that has all the words.
func (c *Console) WaitLine(t testing.TB, within time.Duration, words ...string) {
	t.Helper()
	c.Wait(t, within, strings.Join(words, " … "), func(text string) bool {
		return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		})
	})
}
