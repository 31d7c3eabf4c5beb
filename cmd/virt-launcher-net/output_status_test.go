package main

import (
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// status says why a lease is none any more, or is kept.
func TestWriteLeaseEnd(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for last, want := range map[lease.EventType]string{
		"":                  "lease\tnone since 2026-01-02T03:04:05Z\n",
		lease.EventOffered:  "lease\tnone since 2026-01-02T03:04:05Z\n", // it took another's
		lease.EventExpired:  "lease\tnone since 2026-01-02T03:04:05Z, expired\n",
		lease.EventReleased: "lease\tnone since 2026-01-02T03:04:05Z, released\n",
	} {
		var out strings.Builder
		writeLease(&out, "lease", lease.Status{State: lease.None, Since: at, LastEvent: lease.Event{Type: last, At: at}})
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("after %q it says %s", last, &out)
		}
	}
	for closed, want := range map[bool]string{
		false: "lease\tbound since 2026-01-02T03:04:05Z\nreceived",
		true:  "lease\tbound since 2026-01-02T03:04:05Z\nlease\tkept for a VM that is resumed: none has tap-eth0 open (no carrier)\nreceived",
	} {
		var out strings.Builder
		writeLease(&out, "lease", lease.Status{Interface: "tap-eth0", State: lease.Bound, Since: at, NoCarrier: closed})
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("closed %t, it says %s", closed, &out)
		}
	}
}
