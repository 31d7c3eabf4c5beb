package podtest

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// udhcpcScript applies a lease; the guest of test/guest uses the same.
//
//go:embed udhcpc.sh
var udhcpcScript []byte

// guestOffload is what a guest's virtio driver usually takes (TUN_F_CSUM,
// TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN): partial checksums, large segments.
const guestOffload = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN

// Guest is a guest without a virtual machine: a namespace whose eth0 is
// connected to a pod's tap, frame by frame with offloads, as a virtio device
// would be. Its commands have their own /etc/resolv.conf and hostname.
type Guest struct {
	*NS
	MAC net.HardwareAddr

	offload uintptr
	pod     *NS
	held    *held    // its resolv.conf, lease and script
	tap     *os.File // its end of the pod's tap
	nic     *os.File
	copying sync.WaitGroup
}

// NewGuest connects a guest to a pod's tap for a test; it leaves at the test's end.
func NewGuest(t testing.TB, pod *NS, tap string, mac net.HardwareAddr) *Guest {
	t.Helper()
	guest, err := StartGuest(t.Context(), pod, tap, mac)
	requireNS(t, err)
	closeAfter(t, guest.Close)
	return guest
}

// NewPlainGuest is NewGuest without offloads: every frame between the guest and
// the tap is as it would be on a wire.
func NewPlainGuest(t testing.TB, pod *NS, tap string, mac net.HardwareAddr) *Guest {
	t.Helper()
	guest, err := startGuest(t.Context(), pod, tap, mac, 0)
	requireNS(t, err)
	closeAfter(t, guest.Close)
	return guest
}

// StartGuest connects a guest to a pod's tap, which has one queue: eth0 is up and
// has the MAC, but no address. The caller closes it.
func StartGuest(ctx context.Context, pod *NS, tap string, mac net.HardwareAddr) (*Guest, error) {
	return startGuest(ctx, pod, tap, mac, guestOffload)
}

func startGuest(ctx context.Context, pod *NS, tap string, mac net.HardwareAddr, offload uintptr) (*Guest, error) {
	guest := &Guest{MAC: mac, offload: offload, pod: pod}
	if err := guest.start(ctx, pod, tap); err != nil {
		return nil, errors.Join(fmt.Errorf("start guest on tap %s: %w", tap, err), guest.Close())
	}
	return guest, nil
}

func (g *Guest) start(ctx context.Context, pod *NS, tap string) (err error) {
	if g.held, err = hold(); err != nil {
		return err
	}
	if err := os.WriteFile(g.path("udhcpc.sh"), udhcpcScript, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(g.path("resolv.conf"), nil, 0o644); err != nil {
		return err
	}
	if g.NS, err = NewNS(); err != nil {
		return err
	}
	if g.nic, err = g.openQueue(g.NS, "eth0"); err != nil {
		return err
	}
	if err := g.Batch(ctx, "link set eth0 address "+g.MAC.String()+" up"); err != nil {
		return err
	}
	if err := pod.Do(func() error { _, err := net.InterfaceByName(tap); return err }); err != nil {
		return err
	}
	if g.tap, err = g.openQueue(pod, tap); err != nil {
		return err
	}
	g.copying.Go(func() { copyFrames(g.nic, g.tap) })
	g.copying.Go(func() { copyFrames(g.tap, g.nic) })
	return nil
}

func (g *Guest) openQueue(ns *NS, name string) (file *os.File, err error) {
	err = ns.Do(func() error {
		if file, err = openQueue(name, false); err != nil {
			return err
		}
		return setOffload(file, g.offload)
	})
	return file, err
}

// copyFrames copies frames with their virtio headers until one side is closed
// or its device deleted. Frames to a device that is down or full are lost.
func copyFrames(dst, src *os.File) {
	frame := make([]byte, maxFrame)
	for {
		n, err := src.Read(frame)
		if err != nil {
			return
		}
		if _, err := dst.Write(frame[:n]); errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADFD) {
			return
		}
	}
}

func (g *Guest) path(name string) string {
	return filepath.Join(g.held.dir, name)
}

// inGuest runs "$@" with $0 as /etc/resolv.conf.
const inGuest = `mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"`

// Command is [NS.Command] with the guest's own /etc/resolv.conf, which lasts
// from command to command, and a hostname that does not.
func (g *Guest) Command(ctx context.Context, name string, args ...string) *Cmd {
	return g.NS.Command(ctx, "unshare", append([]string{
		"--mount", "--uts", "--", "sh", "-c", inGuest, g.path("resolv.conf"), name,
	}, args...)...)
}

// Output is [NS.Output] in the guest.
func (g *Guest) Output(ctx context.Context, name string, args ...string) (string, error) {
	return output(g.Command(ctx, name, args...), name, args)
}

// Run is [NS.Run] in the guest.
func (g *Guest) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := g.Output(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Udhcpc gets a lease by busybox's DHCP client, which applies it to eth0 and
// exits, and returns the lease as the client saw it: its names ("ip", "mask",
// "router", "staticroutes", "mtu", "dns", "search", …) and values. It fails
// when no server has answered within some ten seconds.
func (g *Guest) Udhcpc(ctx context.Context) (map[string]string, error) {
	cmd := g.Command(ctx, "busybox", "udhcpc", "--interface", "eth0", "--foreground", "--quit", "--now",
		"--retries", "10", "--timeout", "1", "-O", "staticroutes", "-O", "search", "-O", "mtu",
		"--script", g.path("udhcpc.sh"))
	cmd.Env = append(os.Environ(), "LEASE="+g.path("lease"))
	if _, err := output(cmd, "udhcpc", nil); err != nil {
		return nil, err
	}
	file, err := os.Open(g.path("lease"))
	if err != nil {
		return nil, fmt.Errorf("read udhcpc's lease: %w", err)
	}
	defer file.Close()
	lease := map[string]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		lease[name] = value
	}
	return lease, lines.Err()
}

// Close leaves the tap and closes the guest's namespace.
func (g *Guest) Close() error {
	var errs []error
	for _, file := range []*os.File{g.tap, g.nic} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	g.copying.Wait()
	if g.tap != nil {
		WaitReleased(g.pod, g.tap.Name())
	}
	if g.NS != nil {
		errs = append(errs, g.NS.Close())
	}
	if g.held != nil {
		errs = append(errs, g.held.close())
	}
	return errors.Join(errs...)
}
