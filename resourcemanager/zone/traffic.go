package zone

import (
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// countTraffic has the master of an app sent what balancers have counted of an instance, if it wants that.
func (es *endpoints) countTraffic(count *companionv1.Traffic) {
	a := es.apps.withName(appOfService(count.GetService()))
	if a == nil || !a.connected() || a.instances[count.GetEndpoint()] == nil || !a.wantsTraffic() {
		return
	}
	sum := &masterv1.Traffic{Instance: count.GetEndpoint(), Requests: count.GetRequests(), Errors: count.GetErrors()}
	if before := a.endpoints.traffic[sum.GetInstance()]; before != nil {
		sum.Requests += before.GetRequests()
		sum.Errors += before.GetErrors()
	}
	a.endpoints.traffic[sum.GetInstance()] = sum
	response := es.masters.response(a)
	response.Traffic = append(response.Traffic, sum)
}
