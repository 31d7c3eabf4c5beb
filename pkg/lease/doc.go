// Package journal is what a server with exactly one client keeps of what it
// sees: the state of the lease, what the guest says of itself, counters, the
// last error (Status), and who waits for a change or reads the steps (Event).
// It knows no protocol; pkg/dhcp, pkg/dhcp6 and pkg/ra write into it.
package journal
