package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// resolvConf is what a kubelet gives a pod with the DNS policy ClusterFirst.
const resolvConf = `search default.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
%soptions ndots:5
`

// nameserver6 is in a line of it in a cluster that has IPv6, too.
const nameserver6 = "fd00:10:96::a"

// hostname is the pod's, as its name in Kubernetes would be.
const hostname = "demo-vm"

// webPort is where the web servers listen, the guest's and the one beyond the
// node.
const webPort = 80

type demo struct {
	binary, guestDir, cniDir, cacheDir string
	shape                              podtest.Shape
	dual                               bool   // the pod has IPv6, too
	redirect                           bool   // the pod keeps its network
	dir                                string // all that is written, gone at the end

	screen  screen
	pod     *podtest.Pod
	before  string // the pod's snapshot
	routes  string // its routes, as ip(8) prints them
	routes6 string
	uplink  string // its interface, as ip(8) tells it
}

// show is the whole demo. What a step started is ended when the demo ends,
// however it does.
func (d *demo) show(ctx context.Context) (err error) {
	d.screen.begin()
	if err := d.makePod(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.pod.Close()) }()

	outside, err := serveOutside(d.pod)
	if err != nil {
		return err
	}
	defer outside.Close()
	if d.redirect {
		beside, err := servePod(d.pod)
		if err != nil {
			return err
		}
		defer beside.Close()
	}
	if err := d.showPlan(ctx); err != nil {
		return err
	}
	if err := d.showVM(ctx); err != nil {
		return err
	}
	if err := d.showRestore(ctx); err != nil {
		return err
	}
	return d.screen.end()
}

func (d *demo) makePod(ctx context.Context) (err error) {
	d.screen.heading("A pod, as %s leaves it", d.shape)
	switch {
	case d.dual:
		d.screen.say("the CNI plugins bridge and host-local, configured as flannel's delegate with IPv4 and IPv6")
		d.pod, err = podtest.BuildFlannelDualPod(ctx, d.cniDir, filepath.Join(d.dir, "cni"))
	case d.shape == podtest.Flannel:
		d.screen.say("the CNI plugins bridge and host-local, configured as flannel's delegate")
		d.pod, err = podtest.BuildFlannelPod(ctx, d.cniDir, filepath.Join(d.dir, "cni"))
	default:
		d.screen.say("a veth pair with Calico's address, routes and proxy ARP")
		d.pod, err = podtest.BuildPod(ctx, d.shape)
	}
	if err != nil {
		return err
	}
	if err := d.lookAtPod(ctx); err != nil {
		return errors.Join(err, d.pod.Close())
	}
	return nil
}

func (d *demo) lookAtPod(ctx context.Context) (err error) {
	if err := d.settle(ctx); err != nil {
		return err
	}
	if _, err := d.inPod(ctx, "ip", "addr", "show", "dev", "eth0"); err != nil {
		return err
	}
	if d.routes, d.routes6, err = d.podRoutes(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(d.path("resolv.conf"), []byte(d.resolvConf()), 0o644); err != nil {
		return err
	}
	d.screen.show("cat /etc/resolv.conf", d.resolvConf())
	if d.uplink, err = d.interfaceOf(ctx); err != nil {
		return err
	}
	d.before, err = podtest.Snapshot(ctx, d.pod.NS)
	return err
}

func (d *demo) resolvConf() string {
	if d.dual {
		return fmt.Sprintf(resolvConf, "nameserver "+nameserver6+"\n")
	}
	return fmt.Sprintf(resolvConf, "")
}

func (d *demo) podRoutes(ctx context.Context) (v4, v6 string, err error) {
	if v4, err = d.inPod(ctx, "ip", "route"); err != nil || !d.dual {
		return v4, "", err
	}
	v6, err = d.inPod(ctx, "ip", "-6", "route")
	return v4, v6, err
}

// settle waits until the pod's addresses are known to have no duplicate.
func (d *demo) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return podtest.WaitSettled(ctx, d.pod.NS)
}

// inPod runs a command in the pod and shows what it prints.
func (d *demo) inPod(ctx context.Context, name string, args ...string) (string, error) {
	out, err := d.pod.Output(ctx, name, args...)
	if err != nil {
		return "", err
	}
	d.screen.show(commandLine(name, args), out)
	return out, nil
}

func (d *demo) showPlan(ctx context.Context) error {
	d.screen.heading("What virt-launcher-net would do")
	_, err := d.program(ctx, append([]string{"plan", "--netns", d.pod.Path()}, d.datapathArgs()...)...)
	return err
}

func (d *demo) showRestore(ctx context.Context) error {
	d.screen.heading("The pod is put back")
	if _, err := d.program(ctx, "restore", "--netns", d.pod.Path(), "--state-dir", d.path("state")); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	if _, _, err := d.podRoutes(ctx); err != nil {
		return err
	}
	after, err := podtest.Snapshot(ctx, d.pod.NS)
	if err != nil {
		return err
	}
	if !d.screen.check(after == d.before, "links, addresses, routes, neighbours, sysctls and nftables are as the CNI left them") {
		d.screen.show("what differs", podtest.Diff(d.before, after))
	}
	return nil
}

func (d *demo) path(name string) string {
	return filepath.Join(d.dir, name)
}

// program runs the program to its end and shows what it prints.
func (d *demo) program(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, d.binary, args...).CombinedOutput()
	d.screen.show(commandLine("virt-launcher-net", args), string(out))
	if err != nil {
		return "", fmt.Errorf("virt-launcher-net %s: %w", args[0], err)
	}
	return string(out), nil
}

// output is what the program prints on standard output, which is not shown.
func (d *demo) output(ctx context.Context, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, d.binary, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("virt-launcher-net %s: %w", args[0], err)
	}
	return out, nil
}
