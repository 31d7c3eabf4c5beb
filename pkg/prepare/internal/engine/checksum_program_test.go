package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/bpf"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Another program has another name, so that the filter of an older version is replaced.
func TestChecksumFilterIsNamedByItsProgram(t *testing.T) {
	t.Parallel()
	program, err := checksumProgram(map[string]bpf.Field{ // the same on every kernel
		"ip_summed": {Bits: 2}, "csum_start": {Offset: 2}, "csum_offset": {Offset: 4}, "mac_header": {Offset: 6},
		"encapsulation": {Offset: 8, Bits: 1}, "inner_network_header": {Offset: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	if want := nft.Prefix + "checksum-" + hex.EncodeToString(sum[:8]); checksumFilter != want {
		t.Errorf("the program has changed: rename its filter to %s", want)
	}
}
