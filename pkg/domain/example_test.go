package domain_test

import (
	"fmt"
	"log"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

func ExampleAttach() {
	const xml = `<domain type='kvm'>
  <name>vm</name>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <!-- how the guest sees it is kept, how the host connects it is replaced -->
    <interface type='bridge'>
      <source bridge='br0'/>
      <mac address='0a:58:0a:f4:01:07'/>
      <address type='pci' domain='0' bus='1' slot='0' function='0'/>
    </interface>
  </devices>
</domain>`
	nic := domain.NIC{
		Interface: "eth0",
		Tap:       "tap-eth0",
		MAC:       mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x07},
		MTU:       1450,
	}
	out, err := domain.Attach([]byte(xml), nic)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", out)
	// Output:
	// <domain type="kvm">
	//   <name>vm</name>
	//   <devices>
	//     <emulator>/usr/bin/qemu-system-x86_64</emulator>
	//     <!-- how the guest sees it is kept, how the host connects it is replaced -->
	//     <interface type="ethernet">
	//       <mac address="0a:58:0a:f4:01:07"/>
	//       <target dev="tap-eth0" managed="no"/>
	//       <model type="virtio"/>
	//       <mtu size="1450"/>
	//       <alias name="ua-eth0"/>
	//       <address type="pci" domain="0" bus="1" slot="0" function="0"/>
	//       <rom enabled="no"/>
	//     </interface>
	//   </devices>
	// </domain>
}

func ExampleQEMUArgs() {
	args, err := domain.QEMUArgs(domain.NIC{
		Interface: "eth0",
		Tap:       "tap-eth0",
		MAC:       mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x07},
		MTU:       1450,
		Queues:    2,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, arg := range args {
		fmt.Println(arg)
	}
	// Output:
	// -netdev
	// tap,id=hostua-eth0,ifname=tap-eth0,script=no,downscript=no,queues=2
	// -device
	// virtio-net-pci,netdev=hostua-eth0,id=ua-eth0,mac=0a:58:0a:f4:01:07,romfile=,host_mtu=1450,mq=on,vectors=6
}
