package term

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/snapshot"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

func appNames(apps []*apiv1.App) string {
	var names []string
	for _, app := range apps {
		names = append(names, app.GetName())
	}
	return strings.Join(names, " ")
}

// Lists have pages, filters, an order and a summary, over gRPC and over REST.
func TestListsHavePagesFiltersAndSummaries(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		for _, name := range []string{"web", "shop-2", "shop-10", "batch"} {
			spec := webSpec(1)
			spec.Name = name
			z.deploy(spec)
		}
		if _, err := z.apps().StopApp(context.Background(), &apiv1.StopAppRequest{Name: "batch"}); err != nil {
			t.Fatal(err)
		}
		z.pass(5 * time.Second)
		list := func(request *apiv1.ListAppsRequest) *apiv1.ListAppsResponse {
			t.Helper()
			answer, err := z.apps().ListApps(context.Background(), request)
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		for want, request := range map[string]*apiv1.ListAppsRequest{
			"web shop-2 shop-10 batch":  {},
			"batch shop-2 shop-10 web ": {OrderBy: "name"},
			"web shop-10 shop-2 batch ": {OrderBy: "name", Descending: true},
			"shop-2 shop-10":            {NamePrefix: "shop-"},
			"batch":                     {State: apiv1.App_STOPPED},
			"":                          {User: "nobody"},
			"web shop-2 shop-10":        {Node: "node-1"},
		} {
			if got := appNames(list(request).GetApps()); got != strings.TrimSpace(want) {
				t.Errorf("%v: %q, want %q", request, got, want)
			}
		}
		page := list(&apiv1.ListAppsRequest{PageSize: 3, Summarize: true})
		if len(page.GetApps()) != 3 || page.GetSummary().GetTotal() != 4 || page.GetSummary().GetStates()["STOPPED"] != 1 {
			t.Errorf("a page of %d, %v", len(page.GetApps()), page.GetSummary())
		}
		if rest := list(&apiv1.ListAppsRequest{PageSize: 3, PageToken: page.GetNextPageToken()}); appNames(rest.GetApps()) != "batch" || rest.GetNextPageToken() != "" {
			t.Errorf("the rest is %v", rest)
		}
		for path, want := range map[string]string{
			"/v1/apps?pageSize=1001":                "a page cannot have 1001 entries; ask for 1 to 1000, or leave the size out for 100",
			"/v1/apps?pageToken=nonsense":           "this is no page token of this list; begin again without one",
			"/v1/apps?orderBy=size":                 `a list cannot be ordered by \"size\"; take name, created or state`,
			"/v1/apps?state=BROKEN":                 "the parameter state cannot be",
			"/v1/nodes?pageSize=-1":                 "a page cannot have -1 entries",
			"/v1/containers?pageToken=x&pageSize=3": "this is no page token of this list",
			"/v1/watch?index=-1":                    "-1 is no index; leave it out to begin with what there is",
			"/v1/watch?kinds=KIND_UNSPECIFIED":      "KIND_UNSPECIFIED cannot be watched; take APP, NODE, CONTAINER, QUEUE or CONTRACT",
		} {
			if code, body := z.get(path); code != http.StatusBadRequest || !strings.Contains(body, want) {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		if _, body := z.get("/v1/apps?namePrefix=shop-&pageSize=1&summarize"); !strings.Contains(body, `"total":2`) || strings.Contains(body, `"name":"shop-10"`) {
			t.Errorf("over REST: %s", body)
		}
		containers, err := apiv1.NewContainersClient(z.conn).ListContainers(context.Background(), &apiv1.ListContainersRequest{App: "web", Node: n.name})
		if err != nil || len(containers.GetContainers()) != 1 || !containers.GetContainers()[0].GetMaster() {
			t.Errorf("containers of web: %v, %v", containers, err)
		}
		one, err := apiv1.NewContainersClient(z.conn).GetContainer(context.Background(), &apiv1.GetContainerRequest{Id: containers.GetContainers()[0].GetId()})
		if err != nil || one.GetApp() != "web" || one.GetResources().GetCpuMillis() == 0 {
			t.Errorf("one container: %v, %v", one, err)
		}
		if code, body := z.get("/v1/containers/nope"); code != http.StatusNotFound || !strings.Contains(body, "no container") {
			t.Errorf("no container: %d %s", code, body)
		}
		nodes, err := apiv1.NewNodesClient(z.conn).ListNodes(context.Background(), &apiv1.ListNodesRequest{App: "web", State: apiv1.NodeState_READY, Summarize: true})
		if err != nil || len(nodes.GetNodes()) != 1 || nodes.GetSummary().GetTotal() != 1 {
			t.Errorf("nodes of web: %v, %v", nodes, err)
		}
	})
}

// Nobody who reads waits for the loop, however long it is busy, and what is read is what was stored.
func TestReadsDoNotWaitForTheLoop(t *testing.T) {
	inZone(t, func(z *testZone) {
		z.addNode("node-1")
		z.deploy(webSpec(1))
		busy := make(chan struct{})
		z.rm.looks.put(task{look: func(*zone.Core) (any, error) { <-busy; return nil, nil }})
		synctest.Wait()
		scaled := make(chan error, 1)
		go func() {
			_, err := z.rm.Scale(as("root"), &apiv1.ScaleAppRequest{Name: "web", Instances: 3})
			scaled <- err
		}()
		synctest.Wait()
		if got := z.app("web").GetWanted(); got != 1 {
			t.Errorf("%d instances are wanted before it is stored", got)
		}
		for _, path := range []string{"/v1/apps", "/v1/apps/web", "/v1/nodes", "/v1/nodes/node-1", "/v1/containers", "/v1/queues", "/v1/queues/default", "/v1/lending/contracts", "/v1/zone"} {
			if code, body := z.get(path); code != http.StatusOK || len(body) < 10 {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
		close(busy)
		if err := <-scaled; err != nil {
			t.Fatal(err)
		}
		// Whoever was answered finds what he has changed.
		if app, err := z.rm.App("web"); err != nil || app.App.GetWanted() != 3 {
			t.Errorf("%v, %v", app, err)
		}
	})
}

// One watch shows every kind of object, first all that there is and then what changes, and goes on after a break.
func TestOneWatchShowsEverything(t *testing.T) {
	inZone(t, func(z *testZone) {
		n := z.addNode("node-1")
		z.deploy(webSpec(1))
		m := n.launchMaster()
		known := map[string]*apiv1.WatchResponse_Change{}
		var index int64
		watch := func(request *apiv1.WatchRequest) (restarted bool) {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			stream, err := apiv1.NewZonesClient(z.conn).Watch(ctx, request)
			if err != nil {
				t.Fatal(err)
			}
			for {
				answer, err := stream.Recv()
				if err != nil {
					if code := status.Code(err); code != codes.DeadlineExceeded {
						t.Fatal(err)
					}
					return restarted
				}
				if answer.GetRestarted() {
					clear(known)
					restarted = true
				}
				for _, change := range answer.GetChanges() {
					key := fmt.Sprint(change.GetKind(), " ", change.GetName())
					if known[key] = change; change.GetRemoved() {
						delete(known, key)
					}
				}
				index = answer.GetIndex()
			}
		}
		if !watch(&apiv1.WatchRequest{}) {
			t.Error("a first watch does not say that it begins")
		}
		keys := func() (keys []string) {
			for key := range known {
				keys = append(keys, strings.ReplaceAll(key, "container_e1_946684800000_0001_", ""))
			}
			slices.Sort(keys)
			return keys
		}
		if got := strings.Join(keys(), ", "); got != "APP web, CONTAINER 000001, NODE node-1, QUEUE default, QUEUE root" {
			t.Errorf("it shows %s", got)
		}
		m.startInstance(n, "web-1")
		if watch(&apiv1.WatchRequest{Index: index}) {
			t.Error("a watch with an index begins anew")
		}
		if got := strings.Join(keys(), ", "); got != "APP web, CONTAINER 000001, CONTAINER 000002, NODE node-1, QUEUE default, QUEUE root" {
			t.Errorf("after a break it shows %s", got)
		}
		if app := known["APP web"].GetApp(); app.GetRunning() != 1 {
			t.Errorf("the app is shown as %v", app)
		}
		if used := known["QUEUE default"].GetQueue().GetUsed().GetCpuMillis(); used != 600 {
			t.Errorf("the queue is shown with %d in use", used)
		}
		if c := known["CONTAINER container_e1_946684800000_0001_000002"].GetContainer(); c.GetState() != corev1.ContainerStatus_RUNNING || c.GetInstance() != "web-1" {
			t.Errorf("the container is shown as %v", c)
		}
		z.restart()
		if !watch(&apiv1.WatchRequest{Index: index, Kinds: []apiv1.WatchRequest_Kind{apiv1.WatchRequest_APP}, Names: []string{"web"}}) {
			t.Error("an index of an earlier term is taken for one of this")
		}
		if got := strings.Join(keys(), ", "); got != "APP web" {
			t.Errorf("of one app it shows %s", got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://zone/v1/watch?kinds=APP&names=web", nil)
		response, err := z.web().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		line, err := bufio.NewReader(response.Body).ReadString('\n')
		if err != nil || !strings.Contains(line, `"name":"web"`) || !strings.Contains(line, `"restarted":true`) {
			t.Errorf("over REST it shows %s, %v", line, err)
		}
		names := make([]string, mostNames+1)
		if _, err := z.rm.Watch(&apiv1.WatchRequest{Names: names}); err == nil || !strings.Contains(err.Error(), "101 names are more than the 100 that one watch may have") {
			t.Errorf("too many names: %v", err)
		}
	})
}

// What is shown is what the zone has, whatever has happened.
func TestTheSnapshotIsTheZone(t *testing.T) {
	inZone(t, func(z *testZone) {
		same := func(when string) {
			t.Helper()
			synctest.Wait()
			_, err := look(context.Background(), z.rm.calls, func(core *zone.Core) (struct{}, error) {
				if got, want := appNames(z.rm.AllApps()), len(core.Apps()); z.rm.board.Newest().Count(snapshot.Apps) != want {
					t.Errorf("%s %q are shown of %d apps", when, got, want)
				}
				for _, app := range core.Apps() {
					if shown, err := z.rm.App(app.GetName()); err != nil || shown.App.String() != app.String() {
						t.Errorf("%s an app is shown as\n%v, and is\n%v, %v", when, shown.App, app, err)
					}
				}
				held := 0
				for _, node := range core.Nodes() {
					held += len(node.GetContainers())
					shown, err := z.rm.Node(node.GetName())
					if err != nil || fmt.Sprint(shown.GetContainers()) != fmt.Sprint(node.GetContainers()) || shown.GetState() != node.GetState() || shown.GetUsed().String() != node.GetUsed().String() {
						t.Errorf("%s a node is shown as\n%v, and is\n%v, %v", when, shown, node, err)
					}
				}
				if n := z.rm.board.Newest().Count(snapshot.Containers); n != held {
					t.Errorf("%s %d containers are shown of %d", when, n, held)
				}
				if got, want := z.rm.Zone(), core.Summary(); got.GetUsed().GetCpuMillis() != want.GetUsed().GetCpuMillis() || got.GetCapacity().GetCpuMillis() != want.GetCapacity().GetCpuMillis() || got.GetContainers() != want.GetContainers() {
					t.Errorf("%s the zone is shown as\n%v, and is\n%v", when, got, want)
				}
				return struct{}{}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		same("at first")
		n := z.addNode("node-1")
		z.deploy(webSpec(2))
		m := n.launchMaster()
		same("with a master")
		m.startInstance(n, "web-1")
		m.startInstance(n, "web-2")
		same("with instances")
		n.cut()
		z.pass(time.Minute)
		same("with a lost node")
		z.restart()
		same("after a restart")
		n.register()
		same("with the node back")
		if _, err := z.rm.Remove(as("root"), "web"); err != nil {
			t.Fatal(err)
		}
		z.pass(time.Minute)
		same("after the removal")
	})
}
