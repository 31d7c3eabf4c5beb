package lease

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// State is how far the guest has come.
type State string

// States of the lease. There is no other address to give: a lease that ran out
// or was released is None. An offer to a guest that is Bound changes nothing.
const (
	None    State = "none"
	Offered State = "offered"
	Bound   State = "bound"
)

// Status is what a server knows at one moment. It is a value.
type Status struct {
	// Serving is whether Serve runs.
	Serving bool `json:"serving"`
	// Interface is the tap.
	Interface string `json:"interface"`
	// Address is the one the lease is about, whatever its state.
	Address netip.Prefix `json:"address"`
	// State of the lease, since when, and when it ends. Expires is zero while
	// there is no end.
	State   State     `json:"state"`
	Since   time.Time `json:"since,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	// Renewed is when the guest last renewed the lease that it has, or that has expired,
	// Declined when it last refused the address because somebody else uses it. Zero: never.
	Renewed  time.Time `json:"renewed,omitzero"`
	Declined time.Time `json:"declined,omitzero"`
	// DeclinedUntil is until when nobody is given the address that was declined.
	DeclinedUntil time.Time `json:"declinedUntil,omitzero"`
	// NoCarrier is whether nobody has the tap open. The lease is kept: a VM that is resumed
	// opens the tap again, and never asks.
	NoCarrier bool `json:"noCarrier,omitempty"`
	// LastEvent is the last step of the lease.
	LastEvent Event `json:"lastEvent,omitzero"`
	// Client is what the guest says of itself; while it has a lease, in messages about that.
	Client Client `json:"client,omitzero"`
	// LastMessage is the last one from the guest.
	LastMessage Message `json:"lastMessage,omitzero"`
	// Received and Sent count messages by type (DISCOVER, OFFER, …), Dropped
	// those that got no answer by the reason.
	Received map[string]uint64     `json:"received,omitempty"`
	Sent     map[string]uint64     `json:"sent,omitempty"`
	Dropped  map[DropReason]uint64 `json:"dropped,omitempty"`
	// OtherSource is who asks with another Ethernet address than the guest's, and
	// so gets no answer; zero: nobody has.
	OtherSource OtherSource `json:"otherSource,omitzero"`
	// LastError is the last thing that went wrong on our side.
	LastError Failure `json:"lastError,omitzero"`
	// Notes say which settings could not be sent, and why.
	Notes []string `json:"notes,omitempty"`
}

// IsHeld tells whether a guest that is there has the lease.
func (s Status) IsHeld() bool { return s.State == Bound && !s.NoCarrier }

// IsKept tells whether the lease is kept though no guest is there: one may be resumed.
func (s Status) IsKept() bool { return s.State == Bound && s.NoCarrier }

// Client is what the guest says of itself. It may say anything: what cannot be
// printed was replaced, what is long was cut.
type Client struct {
	Hostname    string `json:"hostname,omitempty"`
	VendorClass string `json:"vendorClass,omitempty"`
	// ID is the client identifier (DHCPv4's option 61) or DUID (DHCPv6's option
	// 1) in hexadecimal.
	ID string `json:"id,omitempty"`
}

// OtherSource is who asks with another Ethernet address than the guest's: most
// often the guest itself, whose NIC was given a MAC of its own.
type OtherSource struct {
	MAC   mac.Addr  `json:"mac"`   // of the last one
	Want  mac.Addr  `json:"want"`  // the guest's
	Count uint64    `json:"count"` // of messages, whatever their MACs
	At    time.Time `json:"at"`    // of the last one
}

// Remedy is the way out.
func (o OtherSource) Remedy() string {
	return "give the VM's NIC the MAC " + o.Want.String() + " (virt-launcher-net domain does), or restore, and prepare with the MAC " + o.MAC.String() + " and the default datapath"
}

// Message is a message's type and when it came.
type Message struct {
	Type string    `json:"type"`
	At   time.Time `json:"at"`
}

// Failure is an error and when it happened.
type Failure struct {
	Error string    `json:"error"`
	At    time.Time `json:"at"`
}

// Counts are counters by what they count, in words.
func Counts[K ~string](counts map[K]uint64) string {
	var words []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%d %s", counts[what], string(what)))
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}
