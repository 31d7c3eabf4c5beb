package dhcp

import (
	"bytes"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/serve"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// TestFlood: a guest that sends without end gets no more than the budget, and
// service again once it stops.
func TestFlood(t *testing.T) {
	tap := newTap(t)
	const perSecond = 50
	s := serveOn(t, tap, testLease(), func(s *leaseServer) { s.SetBudget(perSecond) })
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)

	frame := guestFrame(discover())
	start := time.Now()
	const sent = 20000
	for range sent {
		guest.send(frame)
	}
	flooded := time.Since(start)
	status := await(t, s, "over budget", func(s lease.Status) bool { return s.Dropped[lease.DropOverBudget] > sent/2 })
	most := perSecond * (time.Since(start).Seconds() + 1)
	if got := status.Received["DISCOVER"]; float64(got) > most+1 {
		t.Errorf("%d looked at within %v, want at most %v", got, time.Since(start), most)
	}
	t.Logf("flood of %d in %v: %v looked at, %v dropped", sent, flooded, status.Received, status.Dropped)

	// A client goes on asking. What waits in the kernel's buffer is answered first.
	m := request(dhcpv4.OptRequestedIPAddress(address))
	m.TransactionID = dhcpv4.TransactionID{9, 9, 9, 9}
	for deadline := time.Now().Add(patience); ; {
		guest.send(guestFrame(m))
		got, _ := guest.receive(100 * time.Millisecond)
		for got != nil && messageType(got) != ack {
			got, _ = guest.receive(100 * time.Millisecond)
		}
		if got != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no service after the flood: %+v", s.Status())
		}
	}
}

// TestFloodMemory: what a guest sends does not stay.
func TestFloodMemory(t *testing.T) {
	tap := newTap(t)
	s := newServer(t, tap, testLease())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 20000 {
		m := message(dhcpv4.MessageType(i), dhcpv4.OptHostName(string(make([]byte, i%255))), generic(uint8(i), byte(i)))
		s.handle(guestFrame(m), false)
		s.CatchUp()
		if i%100 == 0 {
			for more := true; more; { // empties the tap's queue
				got, _ := guest.receive(time.Nanosecond)
				more = got != nil
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d bytes stay after the flood", grown)
	}
	if got := s.Status(); len(got.Received) > 9 || len(got.Notes) > 0 {
		t.Errorf("status is %+v", got)
	}
}

// BenchmarkServe is DISCOVER, OFFER, REQUEST, ACK from the guest's end. The
// guest writes frames made before and blocks in read(2), as cheap as can be.
func BenchmarkServe(b *testing.B) {
	tap := newTap(b)
	serveOn(b, tap, testLease(), func(s *leaseServer) { s.SetBudget(1 << 30) })
	ip(b, "link set tap0 up")
	guest := openGuest(b, tap)
	guest.dora()
	fd := int(guest.file.Fd()) // blocking from here on
	if err := unix.SetNonblock(fd, false); err != nil {
		b.Fatal(err)
	}
	list := dhcpv4.OptParameterRequestList(linuxList...)
	questions := [][]byte{
		append(make([]byte, virtioHeader), guestFrame(discover(list))...),
		append(make([]byte, virtioHeader), guestFrame(request(list, dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(address)))...),
	}
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		for _, q := range questions {
			if _, err := unix.Write(fd, q); err != nil {
				b.Fatal(err)
			}
			for {
				n, err := unix.Read(fd, guest.buf[:])
				if err != nil {
					b.Fatal(err)
				}
				if n > virtioHeader+packet.UDP4Len && guest.buf[virtioHeader+packet.EthernetLen+9] == unix.IPPROTO_UDP {
					break
				}
			}
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// TestFloodLog: a guest cannot fill the log.
func TestFloodLog(t *testing.T) {
	tap := newTap(t)
	var log bytes.Buffer
	base, err := NewServer(tap, testLease(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s := base.(*leaseServer)
	ip(t, "link set tap0 up")
	openGuest(t, tap)
	for range 1000 {
		s.handle(guestFrame(discover()), false)
		s.handle(guestFrame(request(dhcpv4.OptRequestedIPAddress(stale))), false)
		s.CatchUp()
	}
	if n := strings.Count(log.String(), "\n"); n < serve.LinesAtOnce || n > 2*serve.LinesAtOnce {
		t.Errorf("%d lines for 2000 messages, want %d or a few more", n, serve.LinesAtOnce)
	}
}

// TestAnswerFirst: the guest has its answer before anything is logged or told, and who
// asks for the status is told of it.
func TestAnswerFirst(t *testing.T) {
	tap := newTap(t)
	ip(t, "link set tap0 up")
	var log bytes.Buffer
	base, err := NewServer(tap, testLease(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	s := base.(*leaseServer)
	events := s.Events(t.Context())
	guest := openGuest(t, tap)
	if err := s.handle(guestFrame(discover()), false); err != nil {
		t.Fatal(err)
	}
	if got, _ := guest.receive(patience); got == nil || messageType(got) != offer {
		t.Fatalf("the answer is %v", got)
	}
	if log.Len() > 0 || len(events) > 0 {
		t.Errorf("before there was an answer %d events were told, and logged was\n%s", len(events), &log)
	}
	if got := s.Status(); got.State != lease.Offered || got.Received["DISCOVER"] != 1 || got.Sent["OFFER"] != 1 {
		t.Errorf("status is %+v", got)
	}
	if len(events) != 1 || !strings.Contains(log.String(), "lease is offered") {
		t.Errorf("%d events were told, and logged was\n%s", len(events), &log)
	}
}
