package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What every server is told to hand out, each in its own language: what a pod
// of flannel has.
const (
	guestMAC  = "02:42:0a:f4:01:07"
	guestIP   = "10.244.1.7"
	serverIP  = "10.244.1.1"
	dnsIP     = "10.96.0.10"
	routesHex = "10:0a:f4:0a:f4:01:01:00:0a:f4:01:01" // 10.244.0.0/16 and default, via serverIP
	tapName   = "tap0"

	guestIP6   = "fd00:10:244:1::7"
	serverIP6  = "fd00:10:244:1::1"
	guestLocal = "fe80::42:aff:fef4:107" // of guestMAC
	guestDUID  = "00:03:00:01:" + guestMAC
)

var searchList = []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"}

// contender is a DHCP server under test.
type contender struct {
	name string
	note string
	// start is the command line; dir is where its files may be, in memory.
	start func(dir string) ([]string, error)
	env   []string
}

// contenders are the servers. Those of Debian that are not installed are below
// root.
func contenders(self, root string) []contender {
	library := "LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	return []contender{
		{name: "canned", note: "the floor: a packet socket and two replies made before", start: func(string) ([]string, error) {
			return []string{self, "canned"}, nil
		}},
		{name: "ours", note: "pkg/dhcp", start: func(string) ([]string, error) {
			return []string{self, "ours"}, nil
		}},
		{name: "dnsmasq", note: "a UDP socket", start: dnsmasq},
		{name: "ISC dhcpd", note: "a packet socket", env: []string{library}, start: func(dir string) ([]string, error) {
			return dhcpd(filepath.Join(root, "usr/sbin/dhcpd"), dir)
		}},
		{name: "Kea", note: "a packet socket", env: []string{library, "KEA_LOCKFILE_DIR=none"}, start: func(dir string) ([]string, error) {
			return kea(filepath.Join(root, "usr/sbin/kea-dhcp4"), dir)
		}},
	}
}

func dnsmasq(dir string) ([]string, error) {
	return []string{
		"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0", "--interface=" + tapName,
		"--except-interface=lo", "--bind-interfaces", "--dhcp-authoritative", "--no-ping", "--quiet-dhcp", "--log-facility=/dev/null",
		"--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--pid-file=",
		"--dhcp-range=" + guestIP + ",static,255.255.255.0,infinite", "--dhcp-host=" + guestMAC + "," + guestIP + ",vm-a,infinite",
		"--dhcp-option=option:router," + serverIP, "--dhcp-option=option:dns-server," + dnsIP,
		"--dhcp-option=option:mtu,1450", "--dhcp-option=option:domain-name," + searchList[0],
		"--dhcp-option=121,10.244.0.0/16," + serverIP + ",0.0.0.0/0," + serverIP,
		"--dhcp-option=option:domain-search," + strings.Join(searchList, ","),
		"--dhcp-range=" + guestIP6 + ",static,64,infinite", "--dhcp-host=id:" + guestDUID + ",[" + guestIP6 + "],infinite",
		"--dhcp-option=option6:dns-server,[" + serverIP6 + "]", "--dhcp-option=option6:domain-search," + strings.Join(searchList, ","),
	}, nil
}

func dhcpd(binary, dir string) ([]string, error) {
	config := filepath.Join(dir, "dhcpd.conf")
	quoted := `"` + strings.Join(searchList, `", "`) + `"`
	text := fmt.Sprintf(`
authoritative; ping-check off; ddns-update-style none;
default-lease-time -1; max-lease-time -1;
option routes code 121 = string;
option routes %s; option routers %s; option domain-name-servers %s; option domain-name "%s";
option domain-search %s; option interface-mtu 1450;
subnet 10.244.1.0 netmask 255.255.255.0 { }
host vm-a { hardware ethernet %s; fixed-address %s; option host-name "vm-a"; }
`, routesHex, serverIP, dnsIP, searchList[0], quoted, guestMAC, guestIP)
	leases := filepath.Join(dir, "dhcpd.leases")
	return []string{binary, "-4", "-d", "-f", "-q", "-cf", config, "-lf", leases, "--no-pid", tapName},
		errors.Join(os.WriteFile(config, []byte(text), 0o644), os.WriteFile(leases, nil, 0o644))
}

func kea(binary, dir string) ([]string, error) {
	config := filepath.Join(dir, "kea.json")
	text := fmt.Sprintf(`{"Dhcp4": {
 "interfaces-config": {"interfaces": [%q], "dhcp-socket-type": "raw"},
 "lease-database": {"type": "memfile", "name": %q, "lfc-interval": 0},
 "valid-lifetime": 4294967295, "calculate-tee-times": false, "authoritative": true,
 "loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "stderr"}]}],
 "option-def": [{"name": "routes", "code": 121, "type": "binary", "space": "dhcp4"}],
 "subnet4": [{"id": 1, "subnet": "10.244.1.0/24", "reservations": [{"hw-address": %q, "ip-address": %q, "hostname": "vm-a"}],
  "option-data": [
   {"name": "routers", "data": %q}, {"name": "domain-name-servers", "data": %q}, {"name": "interface-mtu", "data": "1450"},
   {"name": "domain-name", "data": %q}, {"name": "domain-search", "data": %q},
   {"code": 121, "data": %q}]}]}}
`, tapName, filepath.Join(dir, "kea.csv"), guestMAC, guestIP, serverIP, dnsIP, searchList[0],
		strings.Join(searchList, ", "), strings.ReplaceAll(routesHex, ":", ""))
	return []string{binary, "-c", config}, os.WriteFile(config, []byte(text), 0o644)
}

// running is a contender that serves, in a namespace of its own, and the client at
// its tap.
type running struct {
	contender
	ns     *podtest.NS
	cmd    *podtest.Cmd
	client *client
	dir    string
}

// run starts a contender with these words before its command line, such as those of
// taskset.
func (c contender) run(ctx context.Context, by ...string) (_ *running, err error) {
	r := &running{contender: c}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start %s: %w", c.name, err), r.close())
		}
	}()
	// In memory: what a server writes to disk is not what is measured.
	if r.dir, err = os.MkdirTemp("/dev/shm", "bench-"); err != nil {
		return nil, err
	}
	if r.ns, err = podtest.NewNS(); err != nil {
		return nil, err
	}
	if err := r.ns.Sysctl("net/ipv6/conf/default/accept_dad", "0"); err != nil { // its addresses are there at once
		return nil, err
	}
	if err := r.ns.Batch(ctx, "tuntap add "+tapName+" mode tap", "addr add "+serverIP+"/24 dev "+tapName, "link set "+tapName+" up",
		"addr add "+serverIP6+"/64 dev "+tapName, "neigh add "+guestLocal+" lladdr "+guestMAC+" dev "+tapName+" nud permanent"); err != nil {
		return nil, err
	}
	if r.client, err = newClient(r.ns); err != nil {
		return nil, err
	}
	args, err := c.start(r.dir)
	if err != nil {
		return nil, err
	}
	args = append(by, args...)
	r.cmd = r.ns.Command(ctx, args[0], args[1:]...)
	r.cmd.Env = append(append(os.Environ(), "KEA_PIDFILE_DIR="+r.dir), c.env...)
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd.Stderr = log
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := r.client.waitServer(10 * time.Second); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\n%s", err, text)
	}
	return r, nil
}

// leave has the client leave the tap to another guest.
func (r *running) leave() error {
	if r.client == nil {
		return nil
	}
	err := r.client.close()
	r.client = nil
	return err
}

func (r *running) close() error {
	var errs []error
	if r.cmd != nil && r.cmd.Process != nil {
		errs = append(errs, r.cmd.Process.Kill())
		_ = r.cmd.Wait() // says that it was killed
	}
	errs = append(errs, r.leave())
	if r.ns != nil {
		errs = append(errs, r.ns.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}
