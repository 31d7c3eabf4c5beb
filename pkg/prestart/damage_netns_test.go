package prestart_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// damage is what somebody does to a prepared pod under its VM.
type damage struct {
	do    func(t *testing.T, pod *podtest.Pod)
	says  []string // each about one difference
	heals func(t *testing.T, pod *podtest.Pod)
	shape podtest.Shape
}

func inPod(lines ...string) func(*testing.T, *podtest.Pod) {
	return func(t *testing.T, pod *podtest.Pod) { pod.IP(t, lines...) }
}

func command(line string) func(*testing.T, *podtest.Pod) {
	return func(t *testing.T, pod *podtest.Pod) {
		words := strings.Fields(line)
		pod.Run(t, words[0], words[1:]...)
	}
}

func onNode(line string) func(*testing.T, *podtest.Pod) {
	return func(t *testing.T, pod *podtest.Pod) { pod.Node.IP(t, strings.ReplaceAll(line, "LINK", pod.NodeLink)) }
}

// damages are all that can be done to a pod of the datapath.
func (w wiring) damages() map[string]damage {
	all := map[string]damage{
		"node's end down": {do: onNode("link set LINK down"), says: []string{w.uplink + " is without carrier", "on the node"}, heals: onNode("link set LINK up")},
		"tap down":        {do: inPod("link set tap-eth0 down"), says: []string{"tap-eth0 is down, not up"}},
		"tap's MTU":       {do: inPod("link set tap-eth0 mtu 1400"), says: []string{"tap-eth0 is of MTU 1400"}},
		"tap's MAC":       {do: inPod("link set tap-eth0 address 02:00:00:00:00:99"), says: []string{"tap-eth0 is of MAC 02:00:00:00:00:99"}},
		"checksum filter": {do: command("tc qdisc del dev tap-eth0 clsact"), says: []string{"the checksum filter is missing, which should be at tap-eth0"}},
		"guard deleted":   {do: command("nft delete table " + w.table), says: []string{w.purpose + " is missing"}},
		"rules flushed":   {do: command("nft flush ruleset"), says: []string{w.purpose + " is missing"}},
		"guard emptied":   {do: command("nft flush table " + w.table), says: []string{w.purpose + " is changed (chain "}},
		"chain emptied":   {do: command("nft flush chain " + w.table + " from_guest"), says: []string{w.purpose + " is changed (chain from_guest has 0 rules"}},
		"guard's rule":    {do: command("nft insert rule " + w.table + " " + w.base + " accept"), says: []string{w.purpose + " is changed (chain " + w.base + " has ", " rules, not the "}},
		"guard's chain":   {do: command("nft add chain " + w.table + " other"), says: []string{w.purpose + " is changed (it has "}},
		"guard asleep":    {do: command("nft add table " + w.table + " { flags dormant ; }"), says: []string{w.purpose + " is changed (it has flags"}},
	}
	if w.datapath == redirect {
		maps.Copy(all, damagesOfRedirect)
	} else {
		maps.Copy(all, damagesOfSwitch)
	}
	return all
}

// damagesOfSwitch are those of what only the bridge makes.
var damagesOfSwitch = map[string]damage{
	"switch down":         {do: inPod("link set br-eth0 down"), says: []string{"br-eth0 is down, not up"}},
	"switch deleted":      {do: inPod("link del br-eth0"), says: []string{"br-eth0 is missing", "tap-eth0 is in no " + podtest.SwitchKind, "up-eth0 is in no " + podtest.SwitchKind}},
	"switch's MAC":        {do: inPod("link set br-eth0 address 02:00:00:00:00:99"), says: []string{"br-eth0 is of MAC 02:00:00:00:00:99"}},
	"switch's MTU":        {do: inPod("link set br-eth0 mtu 1300"), says: []string{"br-eth0 is of MTU 1300"}},
	"uplink down":         {do: inPod("link set up-eth0 down"), says: []string{"up-eth0 is down, not up"}},
	"uplink taken out":    {do: inPod("link set up-eth0 nomaster"), says: []string{"up-eth0 is in no " + podtest.SwitchKind + ", not a port of br-eth0"}},
	"uplink's MTU":        {do: inPod("link set up-eth0 mtu 1400"), says: []string{"up-eth0 is of MTU 1400"}},
	"uplink's MAC":        {do: inPod("link set up-eth0 address 02:00:00:00:00:99"), says: []string{"up-eth0 is of MAC 02:00:00:00:00:99"}},
	"uplink renamed":      {do: inPod("link set up-eth0 down", "link set up-eth0 name eth9", "link set eth9 up"), says: []string{"up-eth0 is missing, which should be the pod's interface, which is eth9 now"}},
	"uplink learns":       {do: inPod("link set up-eth0 type bridge_slave learning on"), says: []string{"up-eth0 is a port with learning on"}},
	"uplink disabled":     {do: command(podtest.SetPort + " up-eth0 state 0"), says: []string{"up-eth0 is disabled, not forwarding"}},
	"uplink floods none":  {do: command(podtest.SetPort + " up-eth0 flood off"), says: []string{"up-eth0 is a port with flood off, not on"}},
	"tap isolated":        {do: command(podtest.SetPort + " tap-eth0 isolated on"), says: []string{"tap-eth0 is a port with isolated on, not off"}},
	"switch that snoops":  {do: inPod("link set br-eth0 " + podtest.Switch + " mcast_snooping 1"), says: []string{"br-eth0 is a " + podtest.SwitchKind + " with mcast_snooping on, not off"}},
	"tap taken out":       {do: inPod("link set tap-eth0 nomaster"), says: []string{"tap-eth0 is in no " + podtest.SwitchKind + ", not a port of br-eth0"}},
	"address deleted":     {do: inPod("addr flush dev eth0"), says: []string{"eth0 is without the address 192.168.79.5/32, not with it"}},
	"placeholder deleted": {do: inPod("link del eth0"), says: []string{"eth0 is missing, which should be the placeholder"}},
	"answers deleted":     {do: command("nft delete table netdev virt-launcher-net-eth0"), says: []string{"the table before the bridge is missing"}, shape: podtest.AWS},
	"short cut emptied":   {do: command("nft flush chain netdev virt-launcher-net-eth0 to_guest"), says: []string{"the table before the bridge is changed (chain to_guest has 0 rules"}},
}

// damagesOfRedirect are those of what only redirect makes, and of the pod interface,
// which is the CNI's there.
var damagesOfRedirect = map[string]damage{
	"pod interface down":    {do: inPod("link set eth0 down"), says: []string{"eth0 is down, not up"}, heals: inPod("link set eth0 up")},
	"pod interface renamed": {do: inPod("link set eth0 down", "link set eth0 name eth9", "link set eth9 up"), says: []string{"eth0 is called eth9, not the pod's interface"}, heals: inPod("link set eth9 down", "link set eth9 name eth0", "link set eth0 up")},
	"pod's address deleted": {do: inPod("addr flush dev eth0"), says: []string{"eth0 is without the address 192.168.79.5/32, not with it"}, heals: inPod("addr add 192.168.79.5/32 dev eth0")},
	"pod interface's MAC":   {do: inPod("link set eth0 address 02:00:00:00:00:99"), says: []string{"eth0 is of MAC 02:00:00:00:00:99"}, heals: func(t *testing.T, pod *podtest.Pod) { pod.IP(t, "link set eth0 address "+pod.MAC.String()) }},
	"tap with ARP":          {do: inPod("link set tap-eth0 arp on"), says: []string{"tap-eth0 is with ARP on, not off"}},
	"alias deleted":         {do: inPod("addr flush dev tap-eth0"), says: []string{"tap-eth0 is without the aliases"}},
	"VM's alias forgotten":  {do: inPod("neigh flush nud permanent dev tap-eth0"), says: []string{"tap-eth0 is without the aliases"}},
}
