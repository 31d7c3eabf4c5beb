package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// bootTime is how long an emulated machine may take to boot and report, which
// is some seconds on an idle machine.
const bootTime = 60 * time.Second

// showVM runs a machine in the pod, from before its start to after its end.
func (d *demo) showVM(ctx context.Context) (err error) {
	d.screen.heading("A VM starts in the pod")
	vm := vmtest.VM{
		Name:     "demo",
		GuestDir: d.guestDir,
		Serial:   d.path("serial.log"),
		IPv6:     d.dual,
		Ping:     []string{podtest.OutsideIP.String()},
		Get:      []string{pageURL(podtest.OutsideIP)},
	}
	if d.dual {
		vm.Ping = append(vm.Ping, d.pod.IPv6Gateway.String(), podtest.OutsideIPv6.String())
		vm.Get = append(vm.Get, pageURL(podtest.OutsideIPv6))
	}
	launcher, err := d.launch(vm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, launcher.Kill()) }()
	ctx, cancel := launcher.WhileRunning(ctx)
	defer cancel()

	d.screen.say("waiting for the guest, which is emulated in software and takes some seconds to boot")
	boot, stop := context.WithTimeoutCause(ctx, bootTime, fmt.Errorf("not within %s", bootTime))
	defer stop()
	report, err := vmtest.WaitReport(boot, vm.Serial)
	if err != nil {
		return err
	}
	d.compareReport(report)
	d.screen.heading("Traffic")
	d.showTraffic(ctx, report, d.pod.IPv4.Addr(), podtest.OutsideIP)
	if d.dual {
		d.showTraffic(ctx, report, d.pod.IPv6.Addr(), podtest.OutsideIPv6)
		d.screen.check(report.Pinged[d.pod.IPv6Gateway.String()], "the guest pings the pod's gateway %s", d.pod.IPv6Gateway)
	}

	if d.redirect {
		if err := d.showShared(ctx); err != nil {
			return err
		}
	}

	d.screen.heading("What virt-launcher-net tells while it serves")
	status, err := d.program(ctx, "status", "--netns", d.pod.Path(), "--state-dir", d.path("state"))
	if err != nil {
		return err
	}
	leases := 1
	if d.dual {
		leases = 2
	}
	d.screen.check(strings.Count(status, "bound since") == leases, "it knows that the guest has its lease")
	return d.showShutdown(launcher, vm)
}

// launch starts virt-launcher-net, which starts the machine.
func (d *demo) launch(vm vmtest.VM) (*launchtest.Launcher, error) {
	config := launchtest.Config{
		Binary: d.binary, VM: vm, Dir: d.dir, CacheDir: d.cacheDir, Log: d.screen.log(),
		Args: []string{
			"--netns", d.pod.Path(), "--state-dir", d.path("state"),
			"--resolv-conf", d.path("resolv.conf"), "--hostname", hostname,
		},
	}
	config.Args = append(config.Args, d.datapathArgs()...)
	d.screen.show(commandLine("virt-launcher-net", config.RunArgs()), "")
	return launchtest.Start(config)
}

// compareReport compares what the guest says of itself with what the CNI gave
// the pod.
func (d *demo) compareReport(r vmtest.Report) {
	d.screen.heading("What the guest got by DHCP, in its own words")
	d.screen.show("ip addr", fmt.Sprintf("%s, MTU %d, MAC %s", r.Address, r.MTU, r.MAC))
	d.screen.show("ip route", strings.Join(r.Routes, "\n"))
	d.screen.show("cat /etc/resolv.conf", strings.Join(r.Resolv, "\n"))
	d.screen.show("hostname", r.Hostname)
	d.screen.check(r.Address == d.pod.IPv4, "its address is the pod's: %s", d.pod.IPv4)
	d.screen.check(r.MAC == d.pod.MAC.String(), "its MAC is the one the CNI gave the pod: %s", d.pod.MAC)
	d.screen.check(r.MTU == d.pod.MTU, "its MTU is the pod network's: %d", d.pod.MTU)
	want, got := hops(strings.Split(d.routes, "\n")), hops(r.Routes)
	d.screen.check(slices.Equal(want, got), "it has the pod's routes: %s", strings.Join(want, ", "))
	d.screen.check(d.hasResolver(r.Resolv), "it resolves names as the pod does")
	d.screen.check(r.Hostname == hostname, "it has the pod's hostname: %s", hostname)
	if d.dual {
		d.compareReport6(r)
	}
}

// compareReport6 does so for IPv6.
func (d *demo) compareReport6(r vmtest.Report) {
	d.screen.heading("What the guest got by router advertisements and DHCPv6")
	d.screen.show("ip -6 addr", r.Address6.String())
	d.screen.show("ip -6 route", strings.Join(r.Routes6, "\n"))
	d.screen.check(r.Address6.Addr() == d.pod.IPv6.Addr(), "its address is the pod's: %s", d.pod.IPv6.Addr())
	router := defaultRouter(r.Routes6)
	d.screen.check(router.IsLinkLocalUnicast(), "its default route leads to a link-local address, as IPv6 wants: %s", router)
	// The pod's lead to the gateway by its global address.
	routes := strings.ReplaceAll(d.routes6, " via "+d.pod.IPv6Gateway.String(), " via "+router.String())
	want, got := hops(strings.Split(routes, "\n")), hops(r.Routes6)
	d.screen.check(slices.Equal(want, got), "it has the pod's routes: %s", strings.Join(want, ", "))
	d.screen.check(slices.Contains(r.Resolv, "nameserver "+nameserver6), "it knows the pod's name server %s", nameserver6)
}

// defaultRouter is the gateway of the default route, if there is one.
func defaultRouter(routes []string) netip.Addr {
	for _, hop := range hops(routes) {
		if via, ok := strings.CutPrefix(hop, "default via "); ok {
			router, _ := netip.ParseAddr(via)
			return router
		}
	}
	return netip.Addr{}
}

// hops are routes as ip(8) prints them, reduced to destination and gateway and
// sorted: tools differ in what else they print.
func hops(routes []string) []string {
	var hops []string
	for _, route := range routes {
		words := strings.Fields(route)
		switch {
		case len(words) == 0:
		case len(words) > 2 && words[1] == "via":
			hops = append(hops, words[0]+" via "+words[2])
		default:
			hops = append(hops, words[0])
		}
	}
	slices.Sort(hops)
	return hops
}

// hasResolver tells whether the guest's resolv.conf has the pod's servers and
// search list. Options have no place in DHCP.
func (d *demo) hasResolver(lines []string) bool {
	for line := range strings.Lines(d.resolvConf()) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "options") && !slices.Contains(lines, line) {
			return false
		}
	}
	return true
}

// showTraffic shows both directions, at the pod's address and without
// translation.
func (d *demo) showTraffic(ctx context.Context, r vmtest.Report, address, outside netip.Addr) {
	d.screen.say("from the node to the pod's address, where the guest answers")
	_, err := d.onNode(ctx, "ping", "-c", "1", "-W", "3", address.String())
	d.screen.check(err == nil, "the node pings %s", address)
	out, err := d.onNode(ctx, "curl", "--silent", "--show-error", "--max-time", "5", pageURL(address))
	d.screen.check(err == nil && out == "hello from the guest\n", "the node gets the guest's page")

	d.screen.say("from the guest to %s, beyond the node", outside)
	d.screen.check(r.Pinged[outside.String()], "the guest pings %s", outside)
	page := r.Got[pageURL(outside)]
	d.screen.show("wget -O - "+pageURL(outside), page)
	d.screen.check(page == outsidePage(address), "the guest gets a page there, which saw it come from %s", address)
}

// onNode runs a command on the node and shows what it prints.
func (d *demo) onNode(ctx context.Context, name string, args ...string) (string, error) {
	out, err := d.pod.Node.Output(ctx, name, args...)
	if err != nil {
		out = err.Error()
	}
	d.screen.show(commandLine(name, args), out)
	return out, err
}

func (d *demo) showShutdown(launcher *launchtest.Launcher, vm vmtest.VM) error {
	d.screen.heading("SIGTERM: the guest shuts down")
	start := time.Now()
	err := launcher.End(10 * time.Second)
	serial, readErr := os.ReadFile(vm.Serial)
	d.screen.check(err == nil, "virt-launcher-net ended with status 0 after %.1f s", time.Since(start).Seconds())
	d.screen.check(strings.Contains(string(serial), "VLN-SHUTDOWN"), "the guest was asked, and shut itself down")
	return errors.Join(err, readErr)
}

// pageURL is of the page that a host's web server has.
func pageURL(host netip.Addr) string {
	return "http://" + net.JoinHostPort(host.String(), strconv.Itoa(webPort)) + "/"
}

// outsidePage is what the server beyond the node says to a client.
func outsidePage(client netip.Addr) string {
	return "hello from outside, " + client.String()
}

// serveOutside starts a web server beyond the node, which the caller closes.
func serveOutside(pod *podtest.Pod) (*http.Server, error) {
	var listener net.Listener
	err := pod.Outside.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{Port: webPort}) // of IPv4 and IPv6
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve outside: %w", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			client, _ := netip.ParseAddrPort(r.RemoteAddr)
			fmt.Fprintln(w, outsidePage(client.Addr().Unmap()))
		}),
	}
	go func() { _ = server.Serve(listener) }() // until it is closed
	return server, nil
}
