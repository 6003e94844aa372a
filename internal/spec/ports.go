package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

const (
	// firstPort is the default name of a role's first port.
	firstPort = "http"
	// mostExposed limits the ports that are taken from an image. Each needs a host port for every instance.
	mostExposed = 16
)

// TakePorts gives a role without ports those that its image exposes, as PORT/PROTOCOL; none if the image exposes more than
// mostExposed.
func TakePorts(role *apiv1.RoleSpec, exposed []string) {
	if len(role.GetPorts()) > 0 || role.GetNetwork() != corev1.ContainerSpec_BRIDGE {
		return
	}
	var numbers []int
	for _, text := range exposed {
		number, protocol, _ := strings.Cut(text, "/")
		if n, err := strconv.Atoi(number); err == nil && (protocol == "" || protocol == "tcp") {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	if len(numbers) > mostExposed {
		return
	}
	// The usual ports for HTTP come first.
	for _, usual := range []int{8080, 80} {
		if i := slices.Index(numbers, usual); i > 0 {
			numbers = append([]int{usual}, slices.Delete(numbers, i, i+1)...)
		}
	}
	for i, number := range numbers {
		name := firstPort
		if i > 0 {
			name = fmt.Sprintf("port%d", number)
		}
		role.Ports = append(role.Ports, &corev1.Port{Name: name, ContainerPort: int32(number)})
	}
}
