package statedir

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// late is a context that is over its time and has not ended yet, as on a busy machine.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

// That the time is over is what the context says, not who connects.
func TestDialOverTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, _, err := Dial(late{t.Context()}, path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
