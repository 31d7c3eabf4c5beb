package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readerTime is how long a line waits for who reads the log.
	readerTime = 100 * time.Millisecond
	// wholePart is PIPE_BUF: so much never waits where poll(2) says that something can be
	// written.
	wholePart = 4096
)

// logWriter is standard error. Where nobody reads it any more, as while a container
// runtime is upgraded, a write would wait for as long, and with it all that has something
// to log. So lines are left out then, and counted.
type logWriter struct {
	file       *os.File
	newHandler func(io.Writer) slog.Handler // of what is said about lines that are missing; nil: nothing is

	mu      sync.Mutex
	missing int  // lines, since nobody reads
	cut     bool // the last line that was written has no end
}

func (l *logWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out bytes.Buffer
	if l.cut {
		out.WriteByte('\n')
	}
	wait := readerTime
	if l.missing > 0 {
		wait = 0
		if l.newHandler != nil {
			slog.New(l.newHandler(&out)).Warn("lines of the log are missing here: nobody read standard error", "lines", l.missing)
		}
	}
	out.Write(line)
	begun := false
	for part := range slices.Chunk(out.Bytes(), wholePart) {
		if !isWritable(l.file, wait) {
			l.missing++
			l.cut = l.cut || begun
			return len(line), nil
		}
		if _, err := l.file.Write(part); err != nil {
			return 0, err
		}
		begun = true
	}
	l.missing, l.cut = 0, false
	return len(line), nil
}

// isWritable waits until something can be written to the file, but no longer than that.
func isWritable(f *os.File, wait time.Duration) bool {
	n := 1
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) {
			for err = unix.EINTR; errors.Is(err, unix.EINTR); {
				n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(wait.Milliseconds()))
			}
		})
	}
	return n != 0 // where that can't be told, the write says why
}
