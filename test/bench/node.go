package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// addsAtOnce is how many sandboxes a runtime makes at a time.
	addsAtOnce = 10
	// idleFor is how long an agent whose guests have booted is watched.
	idleFor = 10 * time.Second
	// settleFor is until what a boot has begun is over, and memory that was needed for it is given back.
	settleFor = 15 * time.Second
)

// nodeResult is what a number of VM pods took on a node, by one agent or by sidecars.
type nodeResult struct {
	name   string
	pods   int
	add    []float64 // ms, each: until the pod is prepared and its VM could boot
	rss    float64   // MiB, of all
	pss    float64   // MiB, likewise
	idle   float64   // ms of CPU time in a second, of all
	leases []float64 // ms, from DISCOVER to ACK, where all guests boot at once
	files  float64   // open descriptors, of all
}

// Ways on a node.
const (
	nodeAgent    = "plugin and agent"
	nodeSidecars = "sidecars (`run`)"
)

// measureNode has the VMs of a node served by one agent, and by a sidecar each.
func (b bench) measureNode(ctx context.Context, r *result) error {
	for _, st := range b.stages() {
		for _, way := range []struct {
			name string
			take func(context.Context, *site, *nodeResult) ([]int, func() error, error)
		}{{nodeAgent, b.byAgent}, {nodeSidecars, b.bySidecars}} {
			n := &nodeResult{name: way.name, pods: st.pods}
			if err := b.measureWay(ctx, n, way.take); err != nil {
				return fmt.Errorf("%d pods by %s: %w", st.pods, way.name, err)
			}
			r.nodes = append(r.nodes, n)
		}
	}
	return nil
}

func (b bench) measureWay(ctx context.Context, n *nodeResult, take func(context.Context, *site, *nodeResult) ([]int, func() error, error)) (err error) {
	s, err := newSite(ctx, n.pods)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	pids, end, err := take(ctx, s, n)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return err
	}
	if n.leases, err = bootAll(s.pods); err != nil {
		return err
	}
	time.Sleep(settleFor)
	before, err := cpuOf(pids)
	if err != nil {
		return err
	}
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := cpuOf(pids)
	if err != nil {
		return err
	}
	n.idle = millis(after-before) / idleFor.Seconds()
	for _, pid := range pids {
		resident, err := rss(pid)
		if err != nil {
			return err
		}
		share, err := pss(pid)
		if err != nil {
			return err
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return fmt.Errorf("count open files: %w", err)
		}
		n.rss, n.pss, n.files = n.rss+resident, n.pss+share, n.files+float64(len(files))
	}
	return nil
}

func cpuOf(pids []int) (all time.Duration, err error) {
	for _, pid := range pids {
		took, err := cpu(pid)
		if err != nil {
			return 0, err
		}
		all += took
	}
	return all, nil
}

// timed calls do for each pod, so many at once, and notes how long each took.
func (n *nodeResult) timed(pods []*pod, do func(*pod) error) error {
	took := make([]float64, len(pods))
	var all errgroup.Group
	all.SetLimit(addsAtOnce)
	for i, p := range pods {
		all.Go(func() error {
			start := time.Now()
			err := do(p)
			took[i] = millis(time.Since(start))
			return err
		})
	}
	n.add = took
	return all.Wait()
}

// byAgent adds the pods by the CNI plugin, beside an agent.
func (b bench) byAgent(ctx context.Context, s *site, n *nodeResult) (pids []int, end func() error, err error) {
	dir := filepath.Join(s.dir, "node")
	cmd := exec.CommandContext(ctx, b.static, "node", "--state-dir", dir, "--log-level", "error")
	cmd.Stderr = os.Stderr
	if _, err := start(ctx, s.node, cmd); err != nil {
		return nil, func() error { return nil }, err
	}
	end = func() error { return errors.Join(cmd.Process.Signal(unix.SIGTERM), cmd.Wait(), unmountAll(s.pods)) }
	if err := mountAll(s.pods); err != nil {
		return nil, end, err
	}
	if err := waitFor(ctx, filepath.Join(dir, "node.sock")); err != nil {
		return nil, end, err
	}
	err = n.timed(s.pods, func(p *pod) error { return p.add(ctx, b.static, dir) })
	return []int{cmd.Process.Pid}, end, err
}

// netns is where a runtime mounts the pod's network namespace.
func (p *pod) netns() string { return p.dir + ".netns" }

func mountAll(pods []*pod) error {
	for _, p := range pods {
		err := os.WriteFile(p.netns(), nil, 0o600)
		if err == nil {
			err = os.NewSyscallError("mount", unix.Mount(p.ns.Path(), p.netns(), "", unix.MS_BIND, ""))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func unmountAll(pods []*pod) error {
	for _, p := range pods {
		if err := unix.Unmount(p.netns(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return os.NewSyscallError("unmount", err)
		}
	}
	return nil
}

// waitFor waits until there is a file.
func waitFor(ctx context.Context, path string) error {
	for ctx.Err() == nil {
		if _, err := os.Lstat(path); err == nil {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return context.Cause(ctx)
}

// add calls the plugin as a runtime does.
func (p *pod) add(ctx context.Context, plugin, stateDir string) error {
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=bench-"+filepath.Base(p.dir), "CNI_NETNS="+p.netns(), "CNI_IFNAME="+podLink,
		"CNI_PATH="+filepath.Dir(plugin), "CNI_ARGS=K8S_POD_NAMESPACE=bench;K8S_POD_NAME=vm-"+filepath.Base(p.dir))
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.1.0","name":"bench","type":"virt-launcher-net","select":"all","stateDir":%q,`+
		`"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":%q,"sandbox":%q}],"ips":[{"address":%q,"gateway":%q,"interface":0}]}}`,
		stateDir, podLink, p.netns(), p.ip, p.gateway))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("CNI ADD: %w: %s", err, out)
	}
	return nil
}

// bySidecars starts the program in each pod.
func (b bench) bySidecars(ctx context.Context, s *site, n *nodeResult) (pids []int, end func() error, err error) {
	servers := make([]*server, len(s.pods))
	index := map[*pod]int{}
	for i, p := range s.pods {
		index[p] = i
	}
	end = func() error {
		var ending errgroup.Group
		for _, s := range servers {
			if s != nil {
				ending.Go(s.end)
			}
		}
		return ending.Wait()
	}
	err = n.timed(s.pods, func(p *pod) error {
		s, err := p.run(ctx, b.static, "run", "--no-check")
		if err != nil {
			return err
		}
		servers[index[p]] = s
		return s.wait()
	})
	for _, s := range servers {
		if s != nil {
			pids = append(pids, s.pid)
		}
	}
	return pids, end, err
}

// booting is a guest that boots.
type booting struct {
	client
	ip netip.Addr
}

// bootAll has all guests of the pods ask for their leases at once, and returns how long
// each of them took.
func bootAll(pods []*pod) (took []float64, err error) {
	guests := make([]*booting, len(pods))
	defer func() {
		for _, g := range guests {
			if g != nil {
				err = errors.Join(err, g.close())
			}
		}
	}()
	poll := make([]unix.PollFd, len(pods))
	for i, p := range pods {
		g := &booting{client: client{fd: -1, mac: p.mac}, ip: p.ip.Addr()}
		guests[i] = g
		if err := p.ns.Do(func() (err error) { g.fd, err = openTap("tap-"+podLink, 0); return err }); err != nil {
			return nil, err
		}
		poll[i] = unix.PollFd{Fd: int32(g.fd), Events: unix.POLLIN}
	}
	time.Sleep(100 * time.Millisecond) // until the kernel has told of each carrier
	begun := time.Now()
	for _, g := range guests {
		if err := g.say(dhcpv4.MessageTypeDiscover, nil); err != nil {
			return nil, err
		}
	}
	for left := len(guests); left > 0; {
		if n, err := unix.Poll(poll, 10_000); n == 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("%d of %d guests get no lease", left, len(guests)), err)
		}
		for i, g := range guests {
			if poll[i].Revents == 0 {
				continue
			}
			done, err := g.hear()
			if err != nil {
				return nil, err
			}
			if done {
				left--
				took = append(took, millis(time.Since(begun)))
			}
		}
	}
	return took, nil
}

// say sends a message; server is that of the offer that is taken.
func (g *booting) say(kind dhcpv4.MessageType, server net.IP) error {
	options := []dhcpv4.Option{dhcpv4.OptMessageType(kind)}
	if server != nil {
		options = append(options, dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(g.ip.AsSlice()))
	}
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: g.mac, Options: dhcpv4.OptionsFromList(options...)}
	return g.send(m.ToBytes(), 1)
}

// hear reads one frame, and reports whether it is the one that gives the lease.
func (g *booting) hear() (done bool, err error) {
	reply, err := g.receive(time.Millisecond)
	if errors.Is(err, errTimeout) { // it was another frame
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch messageType(reply) {
	case dhcpv4.MessageTypeOffer:
		m, err := dhcpv4.FromBytes(reply)
		if err != nil {
			return false, fmt.Errorf("parse offer: %w", err)
		}
		return false, g.say(dhcpv4.MessageTypeRequest, m.ServerIdentifier())
	case dhcpv4.MessageTypeAck:
		if got := netip.AddrFrom4([4]byte(reply[16:20])); got != g.ip {
			return false, fmt.Errorf("the guest of %s is given %s", g.ip, got)
		}
		return true, nil
	}
	return false, nil
}

// nodeAims are those of the agent with the most pods.
func (r *result) nodeAims() []aim {
	var most *nodeResult
	for _, n := range r.nodes {
		if n.name == nodeAgent {
			most = n
		}
	}
	if most == nil {
		return nil
	}
	of := fmt.Sprintf(" with %d VM pods", most.pods)
	return []aim{
		{what: "RSS of the agent" + of, limit: 60, unit: " MiB", seen: most.rss},
		{what: "idle CPU of the agent" + of, limit: 1, unit: " ms/s", seen: most.idle},
		{what: fmt.Sprintf("ADD of the plugin, %d at once, p99", addsAtOnce), limit: 25, unit: " ms", seen: quantile(most.add, 0.99)},
	}
}

func (r *result) nodeMarkdown(b *strings.Builder) {
	b.WriteString("\n| VM pods | by | ms per pod, 10 at once: p50 | p99 | memory MiB (RSS) | (PSS) | open files | idle CPU ms/s | lease, all at once, ms: p50 | p99 |\n" +
		"|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, n := range r.nodes {
		fmt.Fprintf(b, "| %d | %s | %.1f | %.1f | %.1f | %.1f | %.0f | %.2f | %.1f | %.1f |\n", n.pods, n.name, quantile(n.add, 0.5), quantile(n.add, 0.99),
			n.rss, n.pss, n.files, n.idle, quantile(n.leases, 0.5), quantile(n.leases, 0.99))
	}
}
