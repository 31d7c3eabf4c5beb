package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// podPort is the port that stays the pod's.
const podPort = 8080

// datapathArgs choose the datapath.
func (d *demo) datapathArgs() []string {
	if !d.redirect {
		return nil
	}
	return []string{"--datapath", "redirect", "--pod-ports", strconv.Itoa(podPort)}
}

// servePod starts a web server in the pod, as a container beside the VM would. The
// caller closes it.
func servePod(pod *podtest.Pod) (*http.Server, error) {
	var listener net.Listener
	err := pod.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{Port: podPort})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve in the pod: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello from the pod") }),
	}
	go func() { _ = server.Serve(listener) }() // until it is closed
	return server, nil
}

// showShared shows what the pod's containers can do while the VM runs at the pod's
// address.
func (d *demo) showShared(ctx context.Context) error {
	d.screen.heading("The pod's containers, beside the VM")
	d.screen.say("a web server in the pod, on the port that stays the pod's, seen from the node")
	out, err := d.onNode(ctx, "curl", "--silent", "--show-error", "--max-time", "5",
		fmt.Sprintf("http://%s/", netip.AddrPortFrom(d.pod.IPv4.Addr(), podPort)))
	d.screen.check(err == nil && out == "hello from the pod\n", "the node gets the pod's page on port %d", podPort)

	d.screen.say("a request and a ping of the pod's own")
	out, err = d.tryInPod(ctx, "curl", "--silent", "--show-error", "--max-time", "5", pageURL(podtest.OutsideIP))
	d.screen.check(err == nil && out == outsidePage(d.pod.IPv4.Addr())+"\n", "the pod gets a page outside")
	_, err = d.tryInPod(ctx, "ping", "-c", "1", "-W", "3", podtest.OutsideIP.String())
	d.screen.check(err == nil, "the pod pings %s", podtest.OutsideIP)

	d.screen.say("the VM has the pod's address; within the pod it has another one, too")
	alias, err := d.alias(ctx)
	if err != nil {
		return err
	}
	out, err = d.tryInPod(ctx, "curl", "--silent", "--show-error", "--max-time", "5", pageURL(alias))
	d.screen.check(err == nil && out == "hello from the guest\n", "the pod gets the guest's page at %s", alias)

	d.screen.say("the pod's interface")
	during, err := d.interfaceOf(ctx)
	if err != nil {
		return err
	}
	d.screen.check(during == d.uplink, "flags, addresses, routes and neighbours of eth0 are those that the CNI gave")
	return nil
}

// alias is where the pod reaches the VM.
func (d *demo) alias(ctx context.Context) (netip.Addr, error) {
	out, err := d.output(ctx, "status", "--netns", d.pod.Path(), "--state-dir", d.path("state"), "-o", "json")
	if err != nil {
		return netip.Addr{}, err
	}
	var status struct {
		Interfaces []struct {
			Aliases []struct {
				VM netip.Addr `json:"vm"`
			} `json:"aliases"`
		} `json:"interfaces"`
	}
	if err := json.Unmarshal(out, &status); err != nil {
		return netip.Addr{}, fmt.Errorf("read status: %w", err)
	}
	if len(status.Interfaces) == 0 || len(status.Interfaces[0].Aliases) == 0 {
		return netip.Addr{}, fmt.Errorf("status tells no address of the VM within the pod: %s", out)
	}
	return status.Interfaces[0].Aliases[0].VM, nil
}

// interfaceOf is all that ip(8) tells of the pod's interface, but for what changes
// with each packet.
func (d *demo) interfaceOf(ctx context.Context) (all string, err error) {
	for _, args := range [][]string{
		{"-d", "link", "show", "dev", "eth0"},
		{"addr", "show", "dev", "eth0"},
		{"route", "show", "table", "all", "dev", "eth0"},
		{"-6", "route", "show", "table", "all", "dev", "eth0"},
		{"neigh", "show", "dev", "eth0", "nud", "permanent"},
	} {
		out, err := d.pod.Output(ctx, "ip", args...)
		if err != nil {
			return "", err
		}
		all += out
	}
	return all, nil
}

// tryInPod runs a command in the pod that may fail, and shows what it prints.
func (d *demo) tryInPod(ctx context.Context, name string, args ...string) (string, error) {
	out, err := d.pod.Output(ctx, name, args...)
	if err != nil {
		out = err.Error()
	}
	d.screen.show(commandLine(name, args), out)
	return out, err
}
