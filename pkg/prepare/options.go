package prepare

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Options say how a pod interface is handed to its VM. The zero value is good.
type Options struct {
	MAC        mac.Addr // the VM's; zero: the pod interface's
	MTU        int      // the VM's; 0: the pod interface's
	Queues     int      // of the tap and the NIC; 0 or 1: one
	TapOwner   *Owner   // who may open the tap without privileges; nil: nobody
	NoGuard    bool     // leave the port guard out
	NoIPv6     bool     // give the VM no IPv6
	UplinkName string   // empty: up- and the pod interface's name
	BridgeName string   // empty: br- and the pod interface's name
	TapName    string   // empty: tap- and the pod interface's name
}

// Owner is a user and a group as numbers. A negative one is nobody's.
type Owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// String is in the words of ip(8).
func (o Owner) String() string {
	var words []string
	if o.UID >= 0 {
		words = append(words, fmt.Sprintf("user %d", o.UID))
	}
	if o.GID >= 0 {
		words = append(words, fmt.Sprintf("group %d", o.GID))
	}
	return cmp.Or(strings.Join(words, " "), "nobody")
}

const (
	minMTU     = 68         // RFC 791
	minIPv6MTU = 1280       // RFC 8200 section 5
	maxTapMTU  = 65535 - 14 // less the Ethernet header (drivers/net/tun.c)
	maxQueues  = 256        // MAX_TAP_QUEUES, drivers/net/tun.c
)

// Validate tells what is wrong with the options whatever the pod interface is,
// all of it at once.
func (o Options) Validate() error {
	var errs []error
	if o.MAC.IsGroup() {
		errs = append(errs, fmt.Errorf("MAC %s is no unicast Ethernet address", o.MAC))
	}
	if o.MTU != 0 && (o.MTU < minMTU || o.MTU > maxTapMTU) {
		errs = append(errs, fmt.Errorf("MTU %d is outside %d…%d", o.MTU, minMTU, maxTapMTU))
	}
	if o.Queues < 0 || o.Queues > maxQueues {
		errs = append(errs, fmt.Errorf("%d queues: a tap has 1 to %d", o.Queues, maxQueues))
	}
	var given []string
	for _, name := range []string{o.TapName, o.BridgeName, o.UplinkName} {
		if name == "" {
			continue
		}
		given = append(given, name)
		errs = append(errs, CheckName(name))
	}
	return errors.Join(append(errs, distinct(given...))...)
}

// CheckName refuses what can't be the name of an interface: what the kernel does
// not take (dev_valid_name, net/core/dev.c), and %, in the place of which it puts
// a number.
func CheckName(name string) error {
	isBad := func(c byte) bool { // to the kernel's isspace the byte 0xa0 is a space
		return strings.IndexByte("/:%\x00 \t\n\v\f\r\xa0", c) >= 0
	}
	if name != "" && name != "." && name != ".." && len(name) < unix.IFNAMSIZ && !slices.ContainsFunc([]byte(name), isBad) {
		return nil
	}
	return fmt.Errorf("%q is no interface name: 1 to %d characters without space, slash, colon or %%", name, unix.IFNAMSIZ-1)
}

// distinct refuses a name that is there twice.
func distinct(names ...string) error {
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			return fmt.Errorf("the name %s is used twice", name)
		}
		seen[name] = true
	}
	return nil
}
