# What tests with Heddle's own control plane share: files that are its processes' alone, workloads as YAML.
package Heddle::Mesh;
use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(private pod);

my $user = $> == 0 ? (getpwnam 'nobody')[2] : $>; # whom heddle's processes become

# Files and folders of <hd>'s, by name, are read by its processes and nobody else.
sub private {
    my ($hd, @names) = @_;
    for my $path (map { $hd->dir . "/$_" } @names) {
        chmod -d $path ? 0700 : 0600, $path;
        chown $user, -1, $path;
    }
}

# A Pod in the mesh, of a service account of its name; <label>: "key: value".
sub pod {
    my ($name, $ip, $label) = @_;
    return <<"EOY";
---
apiVersion: v1
kind: Pod
metadata: {name: $name, namespace: shop, labels: {$label, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: $name, containers: [{name: $name, image: any}]}
status: {phase: Running, podIP: $ip, podIPs: [{ip: $ip}]}
EOY
}

1;
