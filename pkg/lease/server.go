package lease

import "context"

// Server serves one lease on one tap; [dhcp] and [dhcp6] make one. Its methods can be
// called from any goroutine.
//
// [dhcp]: https://pkg.go.dev/github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp
// [dhcp6]: https://pkg.go.dev/github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6
type Server interface {
	// Serve answers the guest until ctx ends, and then returns nil. It outlives the
	// interface being down, having no carrier, and being opened anew by another
	// QEMU. It returns [ErrGone], wrapped, if the interface is deleted, and [ErrClosed],
	// wrapped, after Close. It may be called again after it has returned, but not twice
	// at once.
	Serve(ctx context.Context) error
	// Close ends a Serve that is under way, which returns [ErrClosed], and frees the
	// sockets.
	Close() error
	// Status is what the server knows now.
	Status() Status
	// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
	// The function is called at once and then after each change; it must not block.
	Wait(ctx context.Context, until func(Status) bool) (Status, error)
	// Events returns the steps of the lease from now on, in order, until ctx ends,
	// which closes the channel. The server never waits for a reader: while 64 events
	// wait to be read further ones are dropped for this reader, and the next one that
	// it gets has their number.
	Events(ctx context.Context) <-chan Event
	// Resume takes over what an earlier server knew of this lease, so that a guest
	// that has its address, and need not ask again for long, is known to have it, and
	// of one that was offered it, has given it back, or declined it, or whose lease has
	// ended since, that is known. Another address is nothing to take over. Call it before Serve.
	Resume(was Status)
	// SetBudget sets how many messages per second, and at once, are looked at: 64
	// without it. What a guest sends beyond is dropped by the kernel. Call it before
	// Serve.
	SetBudget(messages int)
}
