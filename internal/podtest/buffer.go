package podtest

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience bounds a wait for what must come: a machine that is busy with other tests takes
// its time.
const Patience = 2 * time.Minute

// Buffer is what a program prints: written by one goroutine, read by another.
type Buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{} // closed when there is more; nil: nobody waits
}

// Write implements [io.Writer].
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written != nil {
		close(b.written)
		b.written = nil
	}
	return b.b.Write(p)
}

// String returns what has been written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// next is what has been written so far, and is closed when there is more.
func (b *Buffer) next() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.written == nil {
		b.written = make(chan struct{})
	}
	return b.b.String(), b.written
}

// unwritten is how often Until asks about what the program may not have written.
const unwritten = 300 * time.Millisecond

// Until waits until something is so, which is asked again when there is more written, and
// now and then. It fails the test after [Patience].
func (b *Buffer) Until(t testing.TB, what string, isSo func(text string) bool) {
	t.Helper()
	again := time.NewTicker(unwritten)
	defer again.Stop()
	for end := time.After(Patience); ; {
		text, more := b.next()
		if isSo(text) {
			return
		}
		select {
		case <-more:
		case <-again.C:
		case <-end:
			t.Fatalf("it is never so that %s; there is\n%s", what, text)
		}
	}
}

// Wait waits until a text has been written.
func (b *Buffer) Wait(t testing.TB, text string) {
	t.Helper()
	b.Until(t, text+" is written", func(all string) bool { return strings.Contains(all, text) })
}
