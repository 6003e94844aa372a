package term

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// shop is the spec of an app with a front and a db, each of a program that it is told by its environment.
func shop(front, db string) *apiv1.AppSpec {
	spec := webSpec(1)
	second := proto.CloneOf(spec.GetRoles()[0])
	spec.Roles[0].Name, spec.Roles[0].Env, second.Name, second.Env = "front", program(front), "db", program(db)
	spec.Roles = append(spec.Roles, second)
	return spec
}

func program(name string) map[string]string { return map[string]string{"PROGRAM": name} }

// programs are those of an app's roles.
func programs(app *apiv1.App) (all []string) {
	for _, role := range app.GetSpec().GetRoles() {
		all = append(all, role.GetEnv()["PROGRAM"])
	}
	return all
}

func TestARoleGoesBackAndTheOthersStay(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(shop("front:1", "db:1"))
		m := n.launchMaster()
		m.say(cameUp(1, 2))
		z.deploy(shop("front:2", "db:1"))
		m.say(cameUp(2, 2))
		z.deploy(shop("front:2", "db:2"))
		back := func(version int32, role string) (*apiv1.App, error) {
			app, err := z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web", Version: version, Role: role})
			synctest.Wait()
			return app, err
		}
		// Version 2 has another db, and it is version 1 that has another front.
		app, err := back(0, "front")
		if err != nil || !slices.Equal(programs(app), []string{"front:1", "db:2"}) {
			t.Fatalf("front went back: %v, %v", app, err)
		}
		if desired := newestDesired(m.heard()); desired.GetRevised() || desired.GetFromVersion() != 1 || !slices.Equal(desired.GetFromRoles(), []string{"front"}) {
			t.Errorf("the master is told %v", desired)
		}
		if app, err = back(0, "db"); err != nil || !slices.Equal(programs(app), []string{"front:1", "db:1"}) {
			t.Fatalf("db went back: %v, %v", app, err)
		}
		if desired := newestDesired(m.heard()); desired.GetFromVersion() != 2 || !slices.Equal(desired.GetFromRoles(), []string{"db"}) {
			t.Errorf("the master is told %v", desired)
		}
		for want, try := range map[string]struct {
			version int32
			role    string
		}{
			`web has no role named "cache"; it has "front", "db"`:                                     {0, "cache"},
			"role db of web runs what version 2 says already":                                         {2, "db"},
			"no earlier version of role db of web that came up and held differs from the present one": {0, "db"},
			"web has no version 77": {77, "db"},
		} {
			if app, err := back(try.version, try.role); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("back to %d of %q: %v, %v; want %q", try.version, try.role, app, err, want)
			}
		}
		history, err := z.apps().GetAppHistory(context.Background(), &apiv1.GetAppRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		var causes []string
		for _, version := range history.GetVersions()[3:] {
			causes = append(causes, version.GetCause())
		}
		if got := strings.Join(causes, ", "); got != "rollback of front to 1, rollback of db to 2" {
			t.Errorf("the history says %s", got)
		}
		z.deploy(webSpec(1))
		if _, err := back(0, "front"); err == nil || !strings.Contains(err.Error(), `web has no roles with names; leave the role out`) {
			t.Errorf("a role of an app without: %v", err)
		}
	})
}

func TestAMasterTakesBackOneRole(t *testing.T) {
	inBoltZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(shop("front:1", "db:1"))
		m := n.launchMaster()
		m.say(cameUp(1, 2))
		spec := shop("front:2", "db:1")
		spec.Roles[0].Update = &apiv1.UpdatePolicy{MaxSurge: 1, Once: &apiv1.UpdatePolicy_OneRollout{Strategy: apiv1.UpdatePolicy_CANARY, CanaryPercent: 30}}
		z.deploy(spec)
		// What was said for the rollout of front stands as long as front is not changed.
		spec = shop("front:2", "db:2")
		spec.Roles[0].Update, spec.Roles[1].Update = &apiv1.UpdatePolicy{MaxSurge: 1}, &apiv1.UpdatePolicy{MaxSurge: 1}
		z.deploy(spec)
		m.heard()
		of := func(to int32, roles ...string) *masterv1.AllocateRequest {
			request := revised(z.app("web").GetVersion(), to, "it does not hold")
			request.Revise.Roles = roles
			return request
		}
		desired := newestDesired(m.say(of(1, "db")))
		if !desired.GetRevised() || desired.GetFromVersion() != 1 || !slices.Equal(desired.GetFromRoles(), []string{"db"}) {
			t.Errorf("the master is told %v", desired)
		}
		if roles := desired.GetSpec().GetRoles(); roles[0].GetEnv()["PROGRAM"] != "front:2" || roles[1].GetEnv()["PROGRAM"] != "db:1" || roles[0].GetUpdate().GetOnce().GetCanaryPercent() != 30 {
			t.Errorf("it is told these roles: %v", roles)
		}
		// It survives a restart of the ResourceManager.
		z.restart()
		n.register()
		if got := z.app("web"); !slices.Equal(programs(got), []string{"front:2", "db:1"}) {
			t.Errorf("after a restart the roles are %v", programs(got))
		}
		m.connect()
		m.openStream()
		if desired := newestDesired(m.heard()); !slices.Equal(desired.GetFromRoles(), []string{"db"}) {
			t.Errorf("after a restart the master is told %v", desired)
		}
		version := z.app("web").GetVersion()
		m.say(of(1, "cache"))
		if got := z.app("web"); got.GetVersion() != version {
			t.Errorf("a role that there is not was taken back: version %d", got.GetVersion())
		}
		events := z.events("web")
		if last := events[len(events)-1].GetMessage(); !strings.Contains(last, `cannot have version 1 again`) || !strings.Contains(last, `do not both have a role "cache"`) {
			t.Errorf("the event about it is %q", last)
		}
		desired = newestDesired(m.say(of(1)))
		if roles := desired.GetSpec().GetRoles(); roles[0].GetEnv()["PROGRAM"] != "front:1" || len(desired.GetFromRoles()) > 0 || roles[0].GetUpdate().GetOnce() != nil {
			t.Errorf("all roles were taken back, and it is told %v", desired)
		}
	})
}

func TestARoleThatDoesNotGoWithThePresentOnesStays(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		before := shop("front:1", "db:1")
		before.Roles[1].After = []string{"front"}
		z.deploy(before)
		now := shop("front:2", "db:2")
		now.Roles[0].After = []string{"db"}
		z.deploy(now)
		_, err := z.apps().RollbackApp(context.Background(), &apiv1.RollbackAppRequest{Name: "web", Role: "db"})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "roles of version 1 do not go with the present ones: ") {
			t.Errorf("a role that would wait for one that waits for it was brought back: %v", err)
		}
		if got := z.app("web"); got.GetVersion() != 2 {
			t.Errorf("the app is at version %d", got.GetVersion())
		}
	})
}
