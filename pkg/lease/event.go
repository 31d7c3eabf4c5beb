package lease

import (
	"net/netip"
	"time"
)

// EventType is a step in the life of a lease.
type EventType string

// Steps in the life of a lease.
const (
	EventOffered  EventType = "offered"
	EventBound    EventType = "bound"    // also by a guest that came back and asked for its address
	EventRenewed  EventType = "renewed"  // by a guest that has the address
	EventRefused  EventType = "refused"  // the guest asked for another address
	EventDeclined EventType = "declined" // the guest found that somebody else uses the address
	EventReleased EventType = "released"
	EventExpired  EventType = "expired"
)

// Event is one step of the lease. Our own checks make none.
type Event struct {
	Type EventType `json:"type"`
	At   time.Time `json:"at"`
	// Address is the lease's.
	Address netip.Prefix `json:"address"`
	// Client is what the guest had said of itself by then.
	Client Client `json:"client,omitzero"`
	// Missed is how many events the reader was too slow for just before.
	Missed int `json:"missed,omitempty"`
}
