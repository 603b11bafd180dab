/**
 * XML descriptions of the smallest things libvirt's drivers accept. Names are the caller's, so that
 * what a test made can be told from what others made.
 */

export interface Guest {
  readonly name: string;
  readonly uuid?: string;
  /**
   * Where QEMU is to listen for VNC; without it the guest has no graphics and its BIOS talks to the
   * serial port.
   */
  readonly vncSocket?: string;
  /** Path of a raw image to attach as vda. */
  readonly disk?: string;
}

/**
 * An emulated guest without an operating system: it runs its BIOS, finds nothing to boot and sits
 * there. Its first serial port is a pty, for `virsh console`.
 */
export function guestXml({ name, uuid, vncSocket, disk }: Guest): string {
  const graphics = vncSocket
    ? `<graphics type='vnc' socket='${vncSocket}'/><video><model type='vga' vram='1024'/></video>`
    : `<video><model type='none'/></video>`;
  const vda = disk
    ? `<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='${disk}'/>` +
      `<target dev='vda' bus='virtio'/></disk>`
    : '';
  return `
<domain type='qemu'>
  <name>${name}</name>
  ${uuid ? `<uuid>${uuid}</uuid>` : ''}
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <bios ${vncSocket ? '' : `useserial='yes' `}rebootTimeout='1000'/>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${vda}
    <controller type='usb' model='none'/>
    <serial type='pty'><target port='0'/></serial>
    <console type='pty'><target type='serial' port='0'/></console>
    ${graphics}
    <memballoon model='none'/>
  </devices>
</domain>`;
}

/**
 * A container for the lxc driver. It can be defined, but not started where the daemon sees no
 * control groups.
 */
export function containerXml(name: string): string {
  return `
<domain type='lxc'>
  <name>${name}</name>
  <memory unit='MiB'>16</memory>
  <os><type>exe</type><init>/bin/sh</init></os>
  <devices><console type='pty'/></devices>
</domain>`;
}

/**
 * An isolated network: only a bridge, no address, so that it starts without dnsmasq. The bridge's
 * name has at most 15 bytes.
 */
export function networkXml(name: string, bridge: string): string {
  return `<network><name>${name}</name><bridge name='${bridge}'/></network>`;
}

/** A pool of files in `target`, an existing directory that the daemon sees too. */
export function poolXml(name: string, target: string): string {
  return `<pool type='dir'><name>${name}</name><target><path>${target}</path></target></pool>`;
}

/** A sparse raw volume of `bytes` (64 MiB when left out). */
export function volumeXml(name: string, bytes = 64 * 1024 * 1024): string {
  return `<volume><name>${name}</name><capacity>${bytes}</capacity><allocation>0</allocation></volume>`;
}

/** A secret that stays in the daemon's memory; `usage` is what it is looked up by. */
export function secretXml(uuid: string, usage: string): string {
  return `
<secret ephemeral='yes' private='no'>
  <uuid>${uuid}</uuid>
  <usage type='volume'><volume>${usage}</volume></usage>
</secret>`;
}

/** A filter with one rule, which is loaded into the firewall only when a guest uses it. */
export function nwfilterXml(name: string): string {
  return `<filter name='${name}'><rule action='drop' direction='in'><mac/></rule></filter>`;
}
