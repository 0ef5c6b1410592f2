#!/usr/bin/perl
# The demo's sample application by itself, without a mesh: examples/bookshop/bookshop.py.
# Needs: python3.
use strict;
use warnings;
use FindBin;
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::XS qw(decode_json);
use Test::More;

my $program = "$FindBin::Bin/../../examples/bookshop/bookshop.py";
my %pid;

# Starts one service on a free port; its first line says which. The line comes when it
# accepts connections, so nothing here waits for a time.
sub start {
    my ($name, @args) = @_;
    my ($role, $version) = split /-/, $name;
    my $pid = open(my $out, '-|', 'python3', $program, $role, '--version', $version,
        '--listen', '127.0.0.1:0', @args) or die "cannot start python3: $!";
    my $line = <$out> // die "$name did not start\n";
    my ($port) = $line =~ /^\Q$name\E listens on 127\.0\.0\.1:(\d+)$/ or die "said: $line";
    $pid{$name} = [$pid, $out];
    return $port;
}

END {
    my $status = $?;
    kill 'KILL', map { $_->[0] } values %pid;
    $? = $status;
}

my $ua = HTTP::Tiny->new(keep_alive => 1, timeout => 20);

sub get {
    my ($port, $path, %headers) = @_;
    my $answer = $ua->get("http://127.0.0.1:$port$path", {headers => \%headers});
    return ($answer->{status}, eval { decode_json($answer->{content}) } // {});
}

my $ratings = start('ratings-v1');
my $details = start('details-v1');
my %reviews = map { $_ => start("reviews-$_", '--upstream', "ratings=127.0.0.1:$ratings") }
    qw(v2 v3);
$reviews{v1} = start('reviews-v1');
my $page = start('page-v1', '--upstream', "details=127.0.0.1:$details",
    '--upstream', "reviews=127.0.0.1:$reviews{v2}/reviews.shop.svc.cluster.local");

subtest 'the whole chain' => sub {
    my ($status, $answer) = get($page, '/', 'x-request-id' => 'r-1',
        traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        b3 => '1-2-1', 'x-other' => 'stays here');
    is $status, 200, 'status';
    is_deeply $answer->{chain}, [qw(page-v1 details-v1 reviews-v2 ratings-v1)], 'chain';
    is "$answer->{service} $answer->{version} $answer->{port}", "page v1 $page", 'itself';
    my ($to_details, $to_reviews) = @{$answer->{calls}};
    my $last = $to_reviews->{answer}{calls}[0]{answer};
    is $to_details->{answer}{received}{host}, 'details:9080', 'Host names the service';
    is $to_reviews->{answer}{received}{host}, 'reviews.shop.svc.cluster.local',
        'Host as given';
    is $last->{received}{'x-request-id'}, 'r-1', 'the request id arrives at the end';
    like $last->{received}{traceparent}, qr/^00-0af7/, 'the trace too';
    is $last->{received}{b3}, '1-2-1', 'b3 too';
    is $answer->{received}{'x-other'}, 'stays here', 'other headers are shown';
    ok !exists $last->{received}{'x-other'}, 'and not forwarded';
};

subtest 'three versions of reviews' => sub {
    my %colour = (v1 => undef, v2 => 'black', v3 => 'red');
    for my $version (sort keys %colour) {
        my ($status, $answer) = get($reviews{$version}, '/reviews/7');
        is "$status $answer->{version} $answer->{book}", "200 $version 7", $version;
        is $answer->{reviews}[0]{colour}, $colour{$version}, 'colour of the stars';
        is scalar @{$answer->{calls}}, $version eq 'v1' ? 0 : 1, 'calls';
    }
};

subtest 'identity is shown' => sub {
    my $cert = 'By=spiffe://cluster.local/ns/shop/sa/details;URI=spiffe://cluster.local/'
        . 'ns/shop/sa/page';
    my (undef, $answer) = get($details, '/details/1', 'X-Forwarded-Client-Cert' => $cert);
    is $answer->{received}{'x-forwarded-client-cert'}, $cert, 'as received';
};

subtest 'flaky ratings' => sub {
    my @tries = map { [get($ratings, '/ratings/1', 'x-flaky' => 2, 'x-request-id' => 'f')] } 1 .. 3;
    is join(' ', map { $_->[0] } @tries), '503 503 200', 'the first two of an id fail';
    is $tries[2][1]{try}, 3, 'the third says that it is the third';
    is((get($ratings, '/ratings/1', 'x-flaky' => 1, 'x-request-id' => 'g'))[0], 503,
        'another id counts by itself');
    is((get($ratings, '/ratings/1?flaky=1&id=h'))[0], 503, 'by the path');
    is((get($ratings, '/ratings/1?flaky=1&id=h'))[0], 200, 'by the path, again');
    is((get($ratings, '/ratings/1'))[0], 200, 'not asked for: never');
    is((get($ratings, '/ratings/1', 'x-flaky' => 1))[0], 400, 'without an id: refused');
    is((get($ratings, '/ratings/1', 'x-flaky' => 'x'))[0], 400, 'nonsense: refused');

    my $sock = connect_to($ratings);
    print $sock "GET /ratings/1?flaky=1&mode=reset&id=i HTTP/1.1\r\nHost: r\r\n\r\n";
    my $got = sysread $sock, my $buf, 100;
    ok !defined $got && $!{ECONNRESET}, 'reset instead of an answer';
    is((get($ratings, '/ratings/1?flaky=1&mode=reset&id=i'))[0], 200, 'then it answers');
};

subtest 'a failed call is never hidden' => sub {
    my ($status, $answer) = get($page, '/', 'x-flaky' => 1, 'x-request-id' => 'p');
    is $status, 502, 'page';
    like $answer->{error}, qr/^reviews: 502/, 'says which call';
    is $answer->{calls}[1]{answer}{calls}[0]{status}, 503, 'and the cause lies in it';
    is((get($page, '/', 'x-flaky' => 1, 'x-request-id' => 'p'))[0], 200, 'next time');
};

sub connect_to {
    return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$_[0]", Timeout => 20) // die $@;
}

# Answers on one connection, read by their Content-Length: (status, body)...
sub read_answers {
    my ($sock, $n, $head_only) = @_;
    my @answers;
    for (1 .. $n) {
        my ($head, $length) = ('', 0);
        while (my $line = <$sock>) {
            $head .= $line;
            $length = $1 if $line =~ /^content-length: (\d+)/i;
            last if $line eq "\r\n";
        }
        read $sock, my $body, $head_only ? 0 : $length;
        push @answers, ($head =~ /^HTTP\/1\.1 (\d+)/)[0];
    }
    return "@answers";
}

subtest 'the connection is kept and stays in step' => sub {
    my $sock = connect_to($details);
    print $sock "POST /details/1 HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\nhello",
        "POST /details/2 HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: d\r\n\r\nGET /nothing HTTP/1.1\r\nHost: d\r\n\r\n";
    is read_answers($sock, 4), '200 200 200 404', 'four requests, four answers';
    print $sock "HEAD /details/1 HTTP/1.1\r\nHost: d\r\n\r\n";
    is read_answers($sock, 1, 1), '200', 'HEAD has no body';
    print $sock "GET /health HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    is read_answers($sock, 1), '200', 'the last one';
    ok !sysread($sock, my $rest, 1), 'closed when asked';
    $sock = connect_to($details);
    print $sock "POST / HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n";
    is read_answers($sock, 1), '400', 'a length that is none';
    ok !sysread($sock, $rest, 1), 'and closed: what follows could be anything';
};

subtest 'an upstream connection that was closed meanwhile costs nothing' => sub {
    my ($pid, $out) = @{delete $pid{'ratings-v1'}};
    kill 'TERM', $pid;
    close $out;
    is $?, 0, 'SIGTERM ends it, status 0';
    is((get($reviews{v2}, '/reviews/1'))[0], 502, 'no ratings');
    my $pid_again = open(my $again, '-|', 'python3', $program, 'ratings', '--listen',
        "127.0.0.1:$ratings") or die $!;
    $pid{'ratings-v1'} = [$pid_again, $again];
    like scalar(<$again>), qr/listens/, 'started again';
    is((get($reviews{v2}, '/reviews/1'))[0], 200, 'and reached again');
};

subtest 'wrong arguments' => sub {
    for my $case (
        [['page', '--listen', '127.0.0.1:0'], qr/page calls details/],
        [['ratings', '--listen', 'nowhere'], qr/not ADDRESS:PORT/],
        [['ratings', '--listen', "127.0.0.1:$details"], qr/cannot listen .* in use/],
        [['ratings'], qr/--listen/],
        ) {
        my ($args, $says) = @$case;
        my $said = do {
            open(my $out, '-|', 'sh', '-c', 'exec python3 "$@" 2>&1', 'sh', $program, @$args)
                or die $!;
            local $/;
            <$out>;
        };
        like $said, $says, "@$args";
    }
};

subtest 'SIGTERM ends each at once, with a client connected' => sub {
    my $idle = connect_to($details);
    for my $name (sort keys %pid) {
        my ($pid, $out) = @{delete $pid{$name}};
        kill 'TERM', $pid;
        close $out;
        is $?, 0, $name;
    }
};

done_testing;
