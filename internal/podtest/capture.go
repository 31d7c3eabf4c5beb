package podtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Capture is a tcpdump(8) running on an interface. Safe for use by several
// goroutines.
type Capture struct {
	// PCAP is the file that packets are written to as they come.
	PCAP string

	t   testing.TB
	cmd *Cmd

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed when lines grew or ended
	ended bool
}

// StartCapture starts tcpdump on an interface of the namespace with a filter
// in pcap-filter(7)'s language, and returns once it listens. It is stopped at
// the test's end at the latest.
func StartCapture(t testing.TB, ns *NS, iface, filter string) *Capture {
	t.Helper()
	c := &Capture{
		PCAP: filepath.Join(t.TempDir(), iface+".pcap"),
		t:    t,
		more: make(chan struct{}),
	}
	// As another user (-Z) it would outlive us: the change clears Pdeathsig.
	// With the default sizes (-s, -B) the kernel keeps eight packets for it.
	c.cmd = ns.Command(t.Context(), "tcpdump", "-Z", "root", "-n", "-e", "-l", "--immediate-mode", "-s", "16384", "-B", "16384",
		"-i", iface, "-w", c.PCAP, "-U", "--print", filter)
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(unix.SIGINT) }
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan error, 1)
	go awaitListening(stderr, listening)
	go c.collect(stdout)
	if err := <-listening; err != nil {
		t.Fatalf("capture on %s: %v: %v", iface, err, c.cmd.Wait())
	}
	t.Cleanup(func() { c.Stop() })
	return c
}

// awaitListening tells when tcpdump listens, or what it said before it ended.
func awaitListening(stderr io.Reader, listening chan<- error) {
	var said bytes.Buffer
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "listening on") {
			listening <- nil
		}
		fmt.Fprintln(&said, lines.Text())
	}
	select {
	case listening <- errors.New(said.String()):
	default:
	}
}

func (c *Capture) collect(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		c.mu.Lock()
		c.lines = append(c.lines, lines.Text())
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
	}
	c.mu.Lock()
	c.ended = true
	close(c.more)
	c.mu.Unlock()
}

// Wait waits until tcpdump has printed a line with the given text and returns
// that line. The test ends if that takes more than half a minute.
func (c *Capture) Wait(text string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), Patience)
	defer cancel()
	for seen := 0; ; {
		c.mu.Lock()
		lines, more, ended := c.lines, c.more, c.ended
		c.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if strings.Contains(lines[seen], text) {
				return lines[seen]
			}
		}
		if ended {
			c.t.Fatalf("capture ended before %q came; got:\n%s", text, strings.Join(lines, "\n"))
		}
		select {
		case <-more:
		case <-ctx.Done():
			c.t.Fatalf("capture: no %q: %v; got:\n%s", text, ctx.Err(), strings.Join(lines, "\n"))
		}
	}
}

// Stop ends tcpdump and returns the lines it printed, one per packet. Whether
// packets sent just before are among them is open: to prove that something
// did not come, send a packet that does after it and Wait for that. Repeated
// calls return the same.
func (c *Capture) Stop() []string {
	c.t.Helper()
	_ = c.cmd.Process.Signal(unix.SIGINT) // an error: it has ended
	for {
		c.mu.Lock()
		lines, more, ended := c.lines, c.more, c.ended
		c.mu.Unlock()
		if ended {
			_ = c.cmd.Wait()
			return lines
		}
		<-more
	}
}
