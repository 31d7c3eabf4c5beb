package launchtest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// libvirtdConf lets everybody in who is in the namespace.
const libvirtdConf = `listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
auth_tcp = "none"
`

// daemon runs libvirtd with the configuration in $1 and the cache $2.
const daemon = `
set -e
mount -t tmpfs none /etc/libvirt
cp "$1"/*.conf /etc/libvirt
mkdir /var/cache/libvirt
mount --bind "$2" /var/cache/libvirt
exec catatonit -- libvirtd --listen`

// StartLibvirtd runs a libvirtd in the namespace, as in a container of its own,
// for a test. It answers at 127.0.0.1, as in qemu+tcp://127.0.0.1/system, and
// ends with the test, as do its machines.
func StartLibvirtd(t testing.TB, ns *podtest.NS) {
	t.Helper()
	for _, program := range []string{"/usr/sbin/libvirtd", "/usr/bin/catatonit"} {
		podtest.Packaged(t, program)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"libvirtd.conf": libvirtdConf, "qemu.conf": qemuConf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cache := filepath.Join(podtest.Built(t, "."), "libvirt-cache")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "ready")})
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	log := &podtest.Buffer{}
	cmd := ns.Command(t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", private, "sh", "sh", "-c", daemon, "sh", dir, cache)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "ready")) // sd_notify(3)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // killed, for the test's context has ended
	if err := ready.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	note := make([]byte, 256)
	n, err := ready.Read(note)
	if err != nil || !strings.Contains(string(note[:n]), "READY=1") {
		t.Fatalf("libvirtd is not ready: %v %q: %s", err, note[:n], log)
	}
}
