// Package lease is what a server on a guest's tap knows and tells, whatever its
// protocol: the state of the lease, who the guest says it is, counters, the last
// error ([Status]), and the steps of the lease ([Event]). It is data; [dhcp],
// [dhcp6] and [ra] make it.
//
// [dhcp]: https://pkg.go.dev/github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp
// [dhcp6]: https://pkg.go.dev/github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6
// [ra]: https://pkg.go.dev/github.com/virt-launcher-net/virt-launcher-net/pkg/ra
package lease
