// Package dhcp6 is a DHCPv6 server (RFC 8415) with exactly one client: the guest
// behind a tap. It knows one lease, answers nobody but the guest's MAC address,
// and needs no address on any interface. Who the guest says it is, its DUID,
// does not matter: it changes with each of its systems, the link does not.
//
// The pipe reads from left to right:
//
//	Conn (packet socket on the tap) → frame → message → Responder.Reply (pure)
//	  → options, fitted to the link → frame → Conn
//
// Everything left of and right of Reply is free of decisions; Reply is free of
// effects. A Responder is a Lease with all encoded that does not depend on the
// question (Lease.Compile). The Server joins them and keeps what only it can
// know, in a journal.
//
// # One address
//
// The guest has one address, whatever it asks for. It goes to the identity
// association that names it, else to the first for non-temporary addresses; all
// others are told that there is none. There is nothing to allocate, so that any
// message gets the same answer before and after a restart, and a guest that
// renews what another server gave it is put right at once: addresses that are
// not the guest's own get lifetimes of zero.
//
// # Use
//
//	conn, err := dhcp6.Listen("tap-eth0") // in the pod's network namespace
//	server, err := dhcp6.NewServer(conn, lease, log)
//	go server.Serve(ctx)                  // in any
package dhcp6
