package podtest

import "testing"

// Text is the same however it comes.
func TestConsoleText(t *testing.T) {
	const printed, want = "\x1b[2J\x1b[01;31mred\x1b[0m\r\n\x1bcplain \x1b(no sequence\n\x1b", "red\nplain \x1b(no sequence\n\x1b"
	for size := 1; size <= len(printed); size++ {
		c := &Console{more: make(chan struct{})}
		for rest := printed; rest != ""; rest = rest[min(size, len(rest)):] {
			c.add([]byte(rest[:min(size, len(rest))]), false)
		}
		c.add(nil, true)
		if got := c.Text(); got != want {
			t.Errorf("%d bytes at once: %q, want %q", size, got, want)
		}
	}
}
