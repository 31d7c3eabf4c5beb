package domain

import (
	"errors"
	"fmt"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

const (
	defaultModel = "virtio"

	// libvirt keeps an alias only with this prefix and of these characters, and
	// replaces any other by one of its own (virDomainDeviceInfoParseXML).
	aliasPrefix = "ua-"
	aliasChars  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

	maxTapName = 15        // IFNAMSIZ-1, linux/if.h
	maxQueues  = 256       // MAX_TAP_QUEUES, drivers/net/tun.c
	minMTU     = 68        // ETH_MIN_MTU, linux/if_ether.h
	maxMTU     = 1<<16 - 1 // the mtu field of struct virtio_net_config
)

// A NIC is the guest's side of one pod interface: what the domain must have for
// the guest to sit on its tap.
type NIC struct {
	// Interface is the name of the pod interface behind the NIC, as eth0. It
	// may be empty if Alias is not.
	Interface string
	// Tap is the name of the tap device; it must exist when the domain starts.
	Tap string
	// MAC is the guest's Ethernet address, unicast.
	MAC mac.Addr
	// Shared is whether the pod has the network of Interface beside the VM, so that
	// other NICs of the domain can use it, too.
	Shared bool
	// MTU is what the guest is told (virtio only), in bytes. 0: nothing.
	MTU int
	// Queues is the number of queue pairs, as the tap was created with. More
	// than one needs a virtio model. 0 is 1.
	Queues int
	// Model is the emulated hardware, as virtio or e1000e. Empty: that of the NIC
	// being replaced, else virtio.
	Model string
	// Alias is the name by which the NIC is found again, in libvirt too. libvirt
	// asks it to begin with "ua-". Empty: "ua-" and Interface, with _ for what
	// libvirt does not take in an alias.
	Alias string
}

// String names n in errors.
func (n NIC) String() string {
	if n.Interface != "" {
		return n.Interface
	}
	return n.Alias
}

// withDefaults returns n as Attach writes it down. Model stays empty if it was:
// its default depends on the domain.
func (n NIC) withDefaults() NIC {
	if n.Alias == "" && n.Interface != "" {
		n.Alias = aliasPrefix + strings.Map(func(r rune) rune {
			if strings.ContainsRune(aliasChars, r) {
				return r
			}
			return '_'
		}, n.Interface)
	}
	if n.Queues == 0 {
		n.Queues = 1
	}
	return n
}

// validate returns what libvirt, QEMU or the kernel would refuse about n, or read
// differently than meant.
func (n NIC) validate() error {
	switch {
	case n.Alias == "":
		return errors.New("neither interface nor alias given")
	case !strings.HasPrefix(n.Alias, aliasPrefix) || n.Alias == aliasPrefix || strings.Trim(n.Alias, aliasChars) != "":
		return fmt.Errorf("alias %q: want %q and letters, digits, _ or -", n.Alias, aliasPrefix)
	case n.Tap == "":
		return errors.New("no tap given")
	case len(n.Tap) > maxTapName || n.Tap == "." || n.Tap == ".." || strings.ContainsFunc(n.Tap, notInLinkName):
		return fmt.Errorf("tap %q is not the name of a network device", n.Tap)
	case n.MAC.IsZero():
		return errors.New("no MAC given")
	case n.MAC.IsGroup():
		return fmt.Errorf("MAC %s is not a unicast Ethernet address", n.MAC)
	case n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU):
		return fmt.Errorf("MTU %d is not within %d..%d", n.MTU, minMTU, maxMTU)
	case n.Queues < 0 || n.Queues > maxQueues:
		return fmt.Errorf("%d queues are not within 1..%d", n.Queues, maxQueues)
	}
	return CheckModel(n.Model)
}

// CheckModel refuses what libvirt does not take as a NIC's model, whether it
// knows that model or not.
func CheckModel(model string) error {
	if strings.Trim(model, aliasChars) != "" {
		return fmt.Errorf("model %q: want letters, digits, _ or -", model)
	}
	return nil
}

// notInLinkName reports whether the kernel refuses r in a name (dev_valid_name),
// or libvirt reads it as part of a pattern.
func notInLinkName(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("/:%", r)
}

// complete returns the NICs with their defaults, once each is valid and none
// claims what another has.
func complete(nics []NIC) ([]NIC, error) {
	out := make([]NIC, 0, len(nics))
	for _, n := range nics {
		n = n.withDefaults()
		if err := n.validate(); err != nil {
			return nil, fmt.Errorf("NIC %s: %w", n, err)
		}
		for _, o := range out {
			switch {
			case o.Alias == n.Alias:
				return nil, fmt.Errorf("NICs %s and %s have the same alias %s", o, n, n.Alias)
			case o.Tap == n.Tap:
				return nil, fmt.Errorf("NICs %s and %s have the same tap %s", o, n, n.Tap)
			case o.MAC == n.MAC:
				return nil, fmt.Errorf("NICs %s and %s have the same MAC %s", o, n, n.MAC)
			}
		}
		out = append(out, n)
	}
	return out, nil
}
