// Package dhcp6 is a DHCPv6 server (RFC 8415) with exactly one client: the guest
// behind a tap. It knows one lease, answers nobody but the guest's MAC address,
// and needs no address on any interface. Who the guest says it is, its DUID,
// does not matter: it changes with each of its systems, the link does not.
//
// A message goes from left to right:
//
//	packet socket on the tap → frame → message → reply (pure)
//	  → options, fitted to the link → frame → packet socket
//
// Everything left of and right of the reply is free of decisions; the reply
// ([Lease.Reply]) is free of effects. The server ([NewServer]) joins them and keeps what only it
// can know ([lease.Status]).
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
// # What is taken from insomniacslk/dhcp, and what not
//
// Its messages, options and encoders of options. Messages are parsed here, since its
// parser looks into every option, without a limit of how many a hostile guest sends,
// and refuses a message for any option that it finds odd.
//
// # Use
//
//	server, err := dhcp6.NewServer("tap-eth0", lease, log) // in the pod's network namespace
//	defer server.Close()
//	go server.Serve(ctx)                                   // in any
package dhcp6
