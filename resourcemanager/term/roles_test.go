package term

import (
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// Each role has its service. The service of the app is that of the role which is exposed, or else of the first.
func TestTheServiceOfAnAppIsItsMainRoles(t *testing.T) {
	for exposed, main := range map[string]string{"front": "front-1", "": "cache-1"} {
		inZone(t, func(z *testZone) {
			n := z.addNode("node-1")
			spec := webSpec(1)
			cache, front := spec.GetRoles()[0], proto.CloneOf(spec.GetRoles()[0])
			cache.Name, front.Name, spec.Roles = "cache", "front", append(spec.Roles, front)
			if exposed != "" {
				front.Expose = &apiv1.Expose{Http: &apiv1.Expose_Http{Host: "web.example.test"}}
			}
			z.deploy(spec)
			m := n.launchMaster()
			for _, role := range []string{"cache", "front"} {
				ask := ask1(role)
				ask.Role = role
				granted := allocated(m.say(&masterv1.AllocateRequest{Asks: []*masterv1.Ask{ask}}))
				if len(granted) != 1 || granted[0].GetLease().GetRole() != role {
					t.Fatalf("granted for %s: %v", role, granted)
				}
				container := granted[0].GetLease().GetContainerId()
				if shown, err := z.rm.Container(container); err != nil || shown.GetRole() != role {
					t.Errorf("before its node has reported it, the container is shown as %v, %v", shown, err)
				}
				n.run(container, map[string]string{"instance": role + "-1", "version": "1"})
				m.say(&masterv1.AllocateRequest{Instances: []*masterv1.InstanceReport{{
					Id: role + "-1", ContainerId: container, Role: role, Version: 1, State: apiv1.Instance_RUNNING, InService: true, Weight: 100,
				}}})
			}
			synctest.Wait()
			for service, want := range map[string]string{"web": main, "cache.web": "cache-1", "front.web": "front-1"} {
				if ids, _ := z.board.Serving(service); !slices.Equal(ids, []string{want}) {
					t.Errorf("with %q exposed %s is %v, want %s", exposed, service, ids, want)
				}
			}
		})
	}
}
