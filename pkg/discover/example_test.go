package discover_test

import (
	"fmt"
	"log"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// In a pod, ReadPod with the zero Options picks the pod's interface and waits
// for its address. This reads what there is, in any network namespace.
func ExampleReadInterfaces() {
	interfaces, err := discover.ReadInterfaces()
	if err != nil {
		log.Fatal(err)
	}
	for _, in := range interfaces {
		if in.Name == "lo" {
			fmt.Println(in.Name, in.MTU)
		}
	}
	// Output: lo 65536
}
