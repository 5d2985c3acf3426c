# Writes gradients.txt. Needs PyTorch (Debian python3-torch 1.13): /usr/bin/python3 tests/golden/gradients.py > tests/golden/gradients.txt
import torch, math
torch.set_num_threads(1)
def fill(shape, k, scale):
    n=1
    for d in shape: n*=d
    return (torch.tensor([math.sin(0.37*i+k) for i in range(n)],dtype=torch.float64)*scale).reshape(shape)
def net(acts, loss, sizes, batch):
    x=fill((batch,sizes[0]),0.5,1.0)
    ps=[]
    h=x
    for l,(a,b) in enumerate(zip(sizes[:-1],sizes[1:])):
        w=fill((b,a),1.0+l,1.0/math.sqrt(a)).requires_grad_(); c=fill((b,),2.0+l,0.1).requires_grad_()
        ps+= [("w%d"%l,w),("b%d"%l,c)]
        h=h@w.T+c
        if l<len(acts): h={'Relu':torch.relu,'Sigmoid':torch.sigmoid,'Tanh':torch.tanh}[acts[l]](h)
    if loss=='ce': L=torch.nn.functional.cross_entropy(h, torch.arange(batch)%sizes[-1])
    else: L=torch.nn.functional.mse_loss(h, fill((batch,sizes[-1]),3.0,1.0))
    L.backward()
    print("case", loss, batch, ",".join(map(str,sizes)), ",".join(acts) or "-", "%.12g"%L.item())
    for n,p in ps:
        g=p.grad.flatten()
        idx=[0,1,len(g)//2,len(g)-1]
        print(n,"%.12g"%g.norm().item(),"%.12g"%g.sum().item()," ".join("%d %.12g"%(i,g[i].item()) for i in idx))
net(['Relu','Relu'],'ce',[784,200,200,10],10)
net(['Tanh'],'ce',[20,16,5],7)
net(['Sigmoid','Tanh'],'mse',[12,9,8,3],6)
net([],'ce',[784,10],32)
